#include "quant/quant_type.h"

#include <array>

namespace edgemoe {
namespace {

constexpr std::array<QuantTraits, kNumQuantTypes> kTraits = {{
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations) \
  {QuantType::k##name, #name, id, elements, bytes, ActivationEncoding::activations},
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE
}};

}  // namespace

std::span<const QuantTraits> all_quant_types() noexcept {
  return kTraits;
}

const QuantTraits& traits(QuantType type) noexcept {
  return kTraits[static_cast<size_t>(type)];
}

std::optional<QuantType> quant_type_from_ggml_id(uint32_t ggml_id) noexcept {
  for (const QuantTraits& t : kTraits) {
    if (t.ggml_id == ggml_id) return t.type;
  }
  return std::nullopt;
}

std::optional<QuantType> quant_type_from_name(std::string_view name) noexcept {
  for (const QuantTraits& t : kTraits) {
    if (t.name == name) return t.type;
  }
  return std::nullopt;
}

}  // namespace edgemoe
