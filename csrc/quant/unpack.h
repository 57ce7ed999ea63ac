// The meaning of every quantised type, in one shape: a block is integer codes under integer
// sub-scales under one float scale. Dequantisation and the scalar kernels are both derived from it.
//
//   weight[i] = (d * scale[i/16]) * code[i] - (dmin * min[i/16])        float32, in this order
//
// A format whose scale is a float per group smaller than its block is cut into several pieces
// ("folds"): a fold is the span of elements that shares one d.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_type.h"

namespace edgemoe {

inline constexpr size_t kMaxFold = 256;
inline constexpr size_t kSubBlock = 16;

// One fold, unpacked. Only the first fold_elements(type) codes (and their sub-blocks) are set.
struct UnpackedFold {
  float d;                              // the scale; finite unless the file's scale is not
  float dmin;                           // only read when has_min(type)
  int16_t scale[kMaxFold / kSubBlock];  // 1 where the format has no sub-scales
  int16_t min[kMaxFold / kSubBlock];    // only read when has_min(type)
  int8_t code[kMaxFold];
};

// Elements that share one float scale: 16 (NVFP4), 32 or 256. Requires: a quantised type.
size_t fold_elements(QuantType type) noexcept;
bool has_min(QuantType type) noexcept;

// Unpacks fold number `fold` of the block at `block` (row-major GGUF bytes, any alignment).
using UnpackFn = void (*)(const std::byte* block, size_t fold, UnpackedFold& out) noexcept;
UnpackFn unpack_function(QuantType type) noexcept;

// Row-major GGUF bytes of `count` weights to float32; equals gguf-py bit for bit. `count` is a
// multiple of the block. Works for every type of the list, F32, F16 and BF16 included.
void dequantize(QuantType type, const std::byte* row, size_t count, float* out) noexcept;

}  // namespace edgemoe
