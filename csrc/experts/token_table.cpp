#include "experts/token_table.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "experts/saved_state.h"

namespace edgemoe {
namespace {

constexpr uint16_t kNone = std::numeric_limits<uint16_t>::max();
constexpr uint32_t kNoToken = std::numeric_limits<uint32_t>::max();

SavedStateKind kind_of(uint32_t num_layers, uint32_t experts_per_layer,
                       uint32_t capacity) noexcept {
  return {0x4e4b4f54, 1, {num_layers, experts_per_layer, capacity}};  // "TOKN"
}

}  // namespace

TokenTable::TokenTable(uint32_t num_layers, uint32_t experts_per_layer, uint32_t capacity)
    : num_layers_(num_layers),
      experts_per_layer_(experts_per_layer),
      tokens_(capacity, kNoToken),
      experts_(size_t{capacity} * num_layers * experts_per_layer, kNone) {
  EM_CHECK(capacity > 0);
}

uint64_t TokenTable::bytes(uint32_t num_layers, uint32_t experts_per_layer,
                           uint32_t capacity) noexcept {
  const uint64_t per_token = uint64_t{num_layers} * experts_per_layer * sizeof(uint16_t);
  return capacity * (sizeof(uint32_t) + per_token);
}

// Neighbouring ids are often used together: multiplying spreads them (2^32 over the golden ratio).
size_t TokenTable::place_of(uint32_t token) const noexcept {
  return (token * uint32_t{2654435769}) % tokens_.size();
}

size_t TokenTable::first_of(uint32_t token, uint32_t layer) const noexcept {
  return (place_of(token) * num_layers_ + layer) * experts_per_layer_;
}

void TokenTable::learn(uint32_t token, uint32_t layer, std::span<const uint32_t> experts) noexcept {
  EM_ASSERT(layer < num_layers_ && token != kNoToken);
  uint32_t& holder = tokens_[place_of(token)];
  if (holder != token) {
    std::fill_n(experts_.begin() + static_cast<ptrdiff_t>(first_of(token, 0)),
                size_t{num_layers_} * experts_per_layer_, kNone);
    holder = token;
  }
  uint16_t* const known = experts_.data() + first_of(token, layer);
  for (uint32_t i = 0; i < experts_per_layer_; ++i) {
    known[i] = i < experts.size() ? static_cast<uint16_t>(experts[i]) : kNone;
  }
}

std::span<const uint16_t> TokenTable::predict(uint32_t token, uint32_t layer) const noexcept {
  if (layer >= num_layers_ || tokens_[place_of(token)] != token) return {};
  const std::span<const uint16_t> known =
      std::span<const uint16_t>(experts_).subspan(first_of(token, layer), experts_per_layer_);
  return known.first(
      static_cast<size_t>(std::find(known.begin(), known.end(), kNone) - known.begin()));
}

std::vector<std::byte> TokenTable::save() const {
  const auto capacity = static_cast<uint32_t>(tokens_.size());
  std::vector<std::byte> payload(tokens_.size() * sizeof(uint32_t) +
                                 experts_.size() * sizeof(uint16_t));
  std::memcpy(payload.data(), tokens_.data(), tokens_.size() * sizeof(uint32_t));
  if (!experts_.empty()) {
    std::memcpy(payload.data() + tokens_.size() * sizeof(uint32_t), experts_.data(),
                experts_.size() * sizeof(uint16_t));
  }
  return seal_state(kind_of(num_layers_, experts_per_layer_, capacity), payload);
}

bool TokenTable::load(std::span<const std::byte> saved) noexcept {
  const auto capacity = static_cast<uint32_t>(tokens_.size());
  const size_t tokens_bytes = tokens_.size() * sizeof(uint32_t);
  const size_t experts_bytes = experts_.size() * sizeof(uint16_t);
  const std::span<const std::byte> payload = open_state(
      kind_of(num_layers_, experts_per_layer_, capacity), tokens_bytes + experts_bytes, saved);
  if (payload.empty()) return false;
  std::memcpy(tokens_.data(), payload.data(), tokens_bytes);
  if (experts_bytes > 0) std::memcpy(experts_.data(), payload.data() + tokens_bytes, experts_bytes);
  return true;
}

}  // namespace edgemoe
