#include <bit>
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

// half_to_float for a row: every case is computed and one is taken, which compilers turn into
// vector code.
void halves_to_floats(const std::byte* halves, size_t count, float* out) noexcept {
  constexpr uint32_t kBias = 112u << 23;  // between the exponents of the two formats
  constexpr uint32_t kLeastNormal = 113u << 23;
  for (size_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, halves + i * sizeof half, sizeof half);
    const uint32_t magnitude = (half & 0x7FFFu) << 13;
    const uint32_t normal = magnitude + kBias;
    const uint32_t subnormal = std::bit_cast<uint32_t>(
        std::bit_cast<float>(magnitude + kLeastNormal) - std::bit_cast<float>(kLeastNormal));
    const uint32_t finite = magnitude < (1u << 23) ? subnormal : normal;
    const uint32_t bits = magnitude >= (31u << 23) ? normal + kBias : finite;
    out[i] = std::bit_cast<float>(bits | ((half & 0x8000u) << 16));
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
  if (type == QuantType::kF16) return halves_to_floats(row, count, out);
  if (type != QuantType::kBF16) return dequantize_blocks(type, row, count, out);
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, row + i * sizeof bits, sizeof bits);
    out[i] = bfloat16_to_float(bits);
  }
}

}  // namespace edgemoe
