// Token id -> the experts that it used last: a guess for the layers that no router can foresee.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edgemoe {

// A table of fixed size, one token for each place; a token that comes takes the place of the one
// that was there. Deterministic; nothing is allocated after construction, but for save().
class TokenTable {
 public:
  // Remembers the first `num_layers` layers, up to `experts_per_layer` experts each, of `capacity`
  // tokens (1 or more).
  TokenTable(uint32_t num_layers, uint32_t experts_per_layer, uint32_t capacity);
  // What an object takes, for the memory plan.
  static uint64_t bytes(uint32_t num_layers, uint32_t experts_per_layer,
                        uint32_t capacity) noexcept;

  // What `token` used in `layer`; of more experts than fit the first are kept.
  // Requires: layer < num_layers, experts below 65535.
  void learn(uint32_t token, uint32_t layer, std::span<const uint32_t> experts) noexcept;
  // In the order of learn(); empty when the token or the layer is not known. Valid until the next
  // learn() or load().
  std::span<const uint16_t> predict(uint32_t token, uint32_t layer) const noexcept;

  // What was learned, with version and checksum.
  std::vector<std::byte> save() const;
  // False, and nothing changes, when the bytes are damaged or of another version or shape. Experts
  // are below 65535; whoever uses them checks that the model has them.
  bool load(std::span<const std::byte> saved) noexcept;

 private:
  size_t place_of(uint32_t token) const noexcept;
  size_t first_of(uint32_t token, uint32_t layer) const noexcept;

  uint32_t num_layers_;
  uint32_t experts_per_layer_;
  // By place: the token, then for each layer its experts, ended by kNone when there are fewer.
  std::vector<uint32_t> tokens_;
  std::vector<uint16_t> experts_;
};

}  // namespace edgemoe
