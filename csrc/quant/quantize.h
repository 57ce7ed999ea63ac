// Quantisation: rows of float32 to the row-major GGUF bytes that unpack.h gives a meaning.
//
// Every quantiser looks for the bytes with the least importance-weighted squared error,
//
//   sum over columns of importance[c] * (weights[c] - dequantised[c])^2
//
// and is a pure function of its arguments: the bytes are the same on every CPU and do not depend on
// threads. A row is quantised on its own.
#pragma once

#include <cstddef>
#include <span>

#include "quant/quant_type.h"

namespace edgemoe {

bool can_quantize(QuantType type) noexcept;

// One row of `count` weights to row_bytes(type, count) bytes. importance: [count] weights of each
// column's squared error, or null for equal ones; only their ratios matter, and a row of zeros is
// taken as equal weights. Weights beyond what the type's scales can hold are clamped; those too
// small for them become zero.
// Requires: can_quantize(type); count is a multiple of the block; weights are finite; importance is
// finite and not negative.
void quantize_row(QuantType type, const float* weights, size_t count, const float* importance,
                  std::byte* out) noexcept;

// The instruction-set levels of the quantisers that this CPU has, lowest first. quantize_row uses
// the last; tests compare them bit for bit.
size_t num_quantize_levels() noexcept;
// As quantize_row. Requires also: level < num_quantize_levels().
void quantize_row_at(size_t level, QuantType type, const float* weights, size_t count,
                     const float* importance, std::byte* out) noexcept;

}  // namespace edgemoe
