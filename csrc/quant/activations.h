// Activations as the kernels read them: rows of float32, or rows rounded to 8 bits in blocks cut
// at absolute columns.
//
// Rounding of a block: amax = max |x|; scale = amax / 127; code = round_half_even(x * (127 /
// amax)), kept within [-127, 127]; a block of zeros has scale 0 and codes 0. `sums` are the exact
// sums of 16 codes, for formats with an offset.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_type.h"

namespace edgemoe {

inline constexpr size_t kSumBlock = 16;

inline constexpr size_t activation_block(ActivationEncoding encoding) noexcept {
  return encoding == ActivationEncoding::kQ8Block256 ? 256 : 32;
}

// Bytes from one row of codes to the next: an odd number of cache lines, because columns of many
// rows meet a tile of weights together, and rows a power of two apart would share a few sets of the
// cache.
inline constexpr size_t spread_code_stride(size_t columns) noexcept {
  constexpr size_t kLine = 64;
  const size_t lines = (columns + kLine - 1) / kLine;
  return (lines % 2 == 0 ? lines + 1 : lines) * kLine;
}

// Borrowed memory of `rows` x `columns` activations. Row r: codes + r * code_stride,
// scales + r * (columns / block), sums + r * (columns / 16), values + r * columns.
// Requires: with a quantised encoding, columns is a multiple of the block.
struct Activations {
  ActivationEncoding encoding = ActivationEncoding::kF32;
  size_t columns = 0;
  size_t code_stride = 0;         // bytes, at least `columns`
  const float* values = nullptr;  // kF32
  const int8_t* codes = nullptr;  // kQ8Block*
  const float* scales = nullptr;  // kQ8Block*
  const int16_t* sums = nullptr;  // kQ8Block*
};

}  // namespace edgemoe
