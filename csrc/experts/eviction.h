// Eviction policies as pure functions: how much an expert deserves to stay.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace edgemoe {

enum class EvictionPolicy : uint8_t {
  kLayerAware,  // the default (design section 5): (decayed frequency + e) / distance to the layer
  kLru,
  kLfu,
  kFifo,
};

struct EvictionPolicyName {
  EvictionPolicy policy;
  std::string_view name;  // "layer-aware", "lru", "lfu", "fifo"
};
std::span<const EvictionPolicyName> eviction_policies() noexcept;
// Errors: kArgument for an unknown name, listing the known ones.
EvictionPolicy eviction_policy_from_name(std::string_view name);

// What is remembered of every expert, resident or not: counters survive eviction.
struct ExpertHistory {
  double frequency = 0;   // share of tokens that used it, decayed per step
  uint64_t uses = 0;      // steps that used it, undecayed
  uint64_t last_use = 0;  // tick
  uint64_t loaded = 0;    // tick
};

struct EvictionContext {
  uint64_t tick = 0;           // demands so far
  uint32_t current_layer = 0;  // the layer that runs now
  uint32_t num_layers = 1;
};

// Frequencies halve in about 64 steps: 2^(-1/64).
inline constexpr double kFrequencyDecay = 0.98922801319397549;

// Larger keeps longer, never negative; values of neighbouring experts may be added. Deterministic.
double keep_value(EvictionPolicy policy, const ExpertHistory& history, uint32_t layer,
                  const EvictionContext& context) noexcept;

}  // namespace edgemoe
