#include "experts/eviction.h"

#include "base/named_row.h"

namespace edgemoe {
namespace {

constexpr EvictionPolicyName kPolicies[] = {
    {EvictionPolicy::kLayerAware, "layer-aware"},
    {EvictionPolicy::kLru, "lru"},
    {EvictionPolicy::kLfu, "lfu"},
    {EvictionPolicy::kFifo, "fifo"},
    {EvictionPolicy::kPaper, "paper"},
};

// Falls with age and rises with use inside the running step, which began at `now`.
double freshness(uint64_t then, uint64_t now) noexcept {
  if (then > now) return 2.0 - 1.0 / (1.0 + static_cast<double>(then - now));
  return 1.0 / (1.0 + static_cast<double>(now - then));
}

}  // namespace

std::span<const EvictionPolicyName> eviction_policies() noexcept {
  return kPolicies;
}

EvictionPolicy eviction_policy_from_name(std::string_view name) {
  return row_named(eviction_policies(), "eviction policy", name).policy;
}

double expert_worth(EvictionPolicy policy, const ExpertHistory& history, uint64_t now) noexcept {
  switch (policy) {
    case EvictionPolicy::kLayerAware:
      return static_cast<double>(history.popularity);
    case EvictionPolicy::kLru:
      return freshness(history.last_use, now);
    case EvictionPolicy::kLfu:
      // Equally frequent: the one used last stays.
      return static_cast<double>(history.uses) + freshness(history.last_use, now) / 2;
    case EvictionPolicy::kFifo:
      return freshness(history.loaded, now);
    case EvictionPolicy::kPaper:
      return static_cast<double>(history.uses);
  }
  return 0;
}

double layer_urgency(EvictionPolicy policy, uint32_t distance, uint32_t num_layers) noexcept {
  switch (policy) {
    case EvictionPolicy::kLayerAware:
      // The distance is less than one token, so it decides between experts of like popularity and
      // never makes a rare one precious.
      return 2.0 - static_cast<double>(distance) / num_layers;
    case EvictionPolicy::kPaper:
      return 1.0 / distance;
    case EvictionPolicy::kLru:
    case EvictionPolicy::kLfu:
    case EvictionPolicy::kFifo:
      return 1.0;
  }
  return 1.0;
}

}  // namespace edgemoe
