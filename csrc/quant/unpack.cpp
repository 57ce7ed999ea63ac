#include "quant/unpack.h"

#include "quant/unpack_types.h"

namespace edgemoe {

// Types of floats are never unpacked; the table has an entry for every type.
void unpack_F32(const std::byte*, size_t, UnpackedFold&) noexcept {}
void unpack_F16(const std::byte*, size_t, UnpackedFold&) noexcept {}
void unpack_BF16(const std::byte*, size_t, UnpackedFold&) noexcept {}

size_t fold_elements(QuantType type) noexcept {
  if (type == QuantType::kNVFP4) return 16;
  return traits(type).activations == ActivationEncoding::kQ8Block256 ? 256 : 32;
}

bool has_min(QuantType type) noexcept {
  switch (type) {
    case QuantType::kQ4_1:
    case QuantType::kQ5_1:
    case QuantType::kQ2_K:
    case QuantType::kQ4_K:
    case QuantType::kQ5_K:
      return true;
    default:
      return false;
  }
}

UnpackFn unpack_function(QuantType type) noexcept {
  static constexpr UnpackFn kFunctions[] = {
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations) unpack_##name,
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE
  };
  return kFunctions[static_cast<size_t>(type)];
}

}  // namespace edgemoe
