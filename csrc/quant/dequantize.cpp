#include <cstring>

#include "base/half.h"
#include "quant/unpack.h"

namespace edgemoe {
namespace {

// weight = (d * scale) * code - dmin * min, rounded after each operation, as gguf-py does.
void dequantize_fold(const UnpackedFold& fold, size_t elements, bool with_min,
                     float* out) noexcept {
  for (size_t s = 0; s < elements / kSubBlock; ++s) {
    const float scale = fold.d * static_cast<float>(fold.scale[s]);
    const float min = with_min ? fold.dmin * static_cast<float>(fold.min[s]) : 0.0f;
    for (size_t i = s * kSubBlock; i < (s + 1) * kSubBlock; ++i) {
      const float product = scale * static_cast<float>(fold.code[i]);
      out[i] = with_min ? product - min : product;
    }
  }
}

void dequantize_blocks(QuantType type, const std::byte* row, size_t count, float* out) noexcept {
  const QuantTraits& quant = traits(type);
  const UnpackFn unpack = unpack_function(type);
  const size_t elements = fold_elements(type);
  const bool with_min = has_min(type);
  UnpackedFold fold;
  for (size_t first = 0; first < count; first += quant.block_elements) {
    for (size_t f = 0; f < quant.block_elements / elements; ++f) {
      unpack(row, f, fold);
      dequantize_fold(fold, elements, with_min, out + first + f * elements);
    }
    row += quant.block_bytes;
  }
}

}  // namespace

void dequantize(QuantType type, const std::byte* row, size_t count, float* out) noexcept {
  if (type == QuantType::kF32) {
    std::memcpy(out, row, count * sizeof(float));
    return;
  }
  if (type != QuantType::kF16 && type != QuantType::kBF16) {
    dequantize_blocks(type, row, count, out);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, row + i * sizeof bits, sizeof bits);
    out[i] = type == QuantType::kF16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

}  // namespace edgemoe
