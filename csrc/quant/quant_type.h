// The enum of quantisation types and their traits, generated from quant_types.def.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace edgemoe {

enum class QuantType : uint8_t {
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations) k##name,
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE
};

inline constexpr size_t kNumQuantTypes = 0
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations) +1
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE
    ;

// How the activations that meet a weight type are stored (see activations.h).
enum class ActivationEncoding : uint8_t { kF32, kQ8Block32, kQ8Block256 };

struct QuantTraits {
  QuantType type;
  std::string_view name;  // "Q4_K", as the field spells it
  uint32_t ggml_id;       // the number in a GGUF tensor directory
  uint32_t block_elements;
  uint32_t block_bytes;
  ActivationEncoding activations;
};

std::span<const QuantTraits> all_quant_types() noexcept;
const QuantTraits& traits(QuantType type) noexcept;
// Empty when the id names no type of the list (removed ids included).
std::optional<QuantType> quant_type_from_ggml_id(uint32_t ggml_id) noexcept;
std::optional<QuantType> quant_type_from_name(std::string_view name) noexcept;

// Bytes of one row of `columns` weights. Requires: columns is a multiple of the block and small
// enough not to overflow (the GGUF reader has checked both).
inline uint64_t row_bytes(QuantType type, uint64_t columns) noexcept {
  const QuantTraits& t = traits(type);
  return columns / t.block_elements * t.block_bytes;
}

}  // namespace edgemoe
