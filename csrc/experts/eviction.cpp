#include "experts/eviction.h"

#include <string>

#include "base/error.h"

namespace edgemoe {
namespace {

constexpr EvictionPolicyName kPolicies[] = {
    {EvictionPolicy::kLayerAware, "layer-aware"},
    {EvictionPolicy::kLru, "lru"},
    {EvictionPolicy::kLfu, "lfu"},
    {EvictionPolicy::kFifo, "fifo"},
};

// Experts that were never used still differ by the distance of their layer.
constexpr double kLeastFrequency = 1e-3;

// Layers until `layer` runs again; the running one comes round last.
double distance_to(uint32_t layer, const EvictionContext& context) noexcept {
  const uint32_t current = context.current_layer;
  return layer > current ? layer - current : layer + context.num_layers - current;
}

double freshness(uint64_t then, uint64_t now) noexcept {
  return 1.0 / (1.0 + static_cast<double>(now - then));
}

}  // namespace

std::span<const EvictionPolicyName> eviction_policies() noexcept {
  return kPolicies;
}

EvictionPolicy eviction_policy_from_name(std::string_view name) {
  std::string known;
  for (const EvictionPolicyName& policy : kPolicies) {
    if (policy.name == name) return policy.policy;
    known += (known.empty() ? "" : ", ") + std::string(policy.name);
  }
  throw Error(ErrorCode::kArgument,
              "unknown eviction policy '" + std::string(name) + "'; known: " + known);
}

double keep_value(EvictionPolicy policy, const ExpertHistory& history, uint32_t layer,
                  const EvictionContext& context) noexcept {
  switch (policy) {
    case EvictionPolicy::kLayerAware:
      return (history.frequency + kLeastFrequency) / distance_to(layer, context);
    case EvictionPolicy::kLru:
      return freshness(history.last_use, context.tick);
    case EvictionPolicy::kLfu:
      // Equally frequent: the one used last stays.
      return static_cast<double>(history.uses) + freshness(history.last_use, context.tick);
    case EvictionPolicy::kFifo:
      return freshness(history.loaded, context.tick);
  }
  return 0;
}

}  // namespace edgemoe
