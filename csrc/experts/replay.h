// Runs recorded routing through the cache of the engine: what would a policy and a pool have hit?
#pragma once

#include <array>
#include <cstdint>

#include "base/should_stop.h"
#include "experts/eviction.h"
#include "experts/routing_trace.h"

namespace edgemoe {

struct ReplayCounts {
  uint64_t demands = 0;
  uint64_t hits = 0;  // resident when the layer asked
};
struct ReplayResult {
  std::array<ReplayCounts, 2> phases;  // by TracePhase
  uint64_t evictions = 0;
};

// The real ExpertCache with slots of one size, used as the store uses it: what a layer asks for is
// pinned until it was used, and a pool too small for one request serves it in waves.
// Requires: num_slots > 0. Asks should_stop again and again. Errors: kCancelled.
ReplayResult replay(const RoutingTrace& trace, EvictionPolicy policy, uint32_t num_slots,
                    const ShouldStop& should_stop = {});

// Belady's optimum under the same rules: every miss is loaded (no bypass), what a request needs
// stays until it is served, else whatever is needed last goes. No policy hits more, but for the
// waves of a pool smaller than one request, where the policy chooses their order.
// Errors: kCancelled.
ReplayResult replay_optimum(const RoutingTrace& trace, uint32_t num_slots,
                            const ShouldStop& should_stop = {});

}  // namespace edgemoe
