// Eviction policies as two pure functions: how much an expert deserves to stay.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace edgemoe {

enum class EvictionPolicy : uint8_t {
  kLayerAware,  // the default: popularity, weighed by how soon the layer runs again
  kLru,
  kLfu,
  kFifo,
  kPaper,  // EdgeMoE's rule by its text: undecayed frequency / layers until the layer runs again
};

struct EvictionPolicyName {
  EvictionPolicy policy;
  std::string_view name;  // "layer-aware", "lru", "lfu", "fifo", "paper"
};
std::span<const EvictionPolicyName> eviction_policies() noexcept;
// Errors: kArgument for an unknown name, listing the known ones.
EvictionPolicy eviction_policy_from_name(std::string_view name);

// What is remembered of every expert, resident or not: counters survive eviction.
struct ExpertHistory {
  float popularity = 0;   // chance that a token uses it (popularity.h)
  uint32_t uses = 0;      // steps that used it, undecayed
  uint64_t last_use = 0;  // tick
  uint64_t loaded = 0;    // tick
};

// What an expert deserves is the product of two numbers. They are separate because one changes with
// every layer and the other does not: a pool has thousands of slots and runs dozens of layers a
// token.

// Worth of the expert itself; `now` is the tick at which the step began. Larger keeps longer, never
// negative, and worths of neighbours may be added. Deterministic.
double expert_worth(EvictionPolicy policy, const ExpertHistory& history, uint64_t now) noexcept;

// Factor by when its layer runs again: `distance` is the number of layers until then, from 1 for
// the next one to num_layers for the running one. Positive.
double layer_urgency(EvictionPolicy policy, uint32_t distance, uint32_t num_layers) noexcept;

}  // namespace edgemoe
