// What a cache should hold when nothing else is known: the experts that earlier runs used most.
#pragma once

#include <vector>

#include "experts/expert_cache.h"
#include "weights/expert_layout.h"

namespace edgemoe {

// The most popular experts that fit the cache's pool together, in file order. None that was never
// used.
std::vector<ExpertId> hottest_experts(const ExpertCache& cache, const ExpertLayout& layout);

}  // namespace edgemoe
