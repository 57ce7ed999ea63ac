// Low copies, an option that changes results: where an expert is not in memory and does not count
// for much, its copy at fewer bits is read and computed with in its place (HOBBIT, arXiv
// 2411.01433). How much an expert counts is what was ranked before it: the low copy serves where
// the experts before it have more than a threshold of the token's routing weight. Never the first
// choice, and never an expert that is in memory or on its way there. No clock: the same cache
// states give the same choices.
#pragma once

#include <cstdint>
#include <span>

#include "experts/expert_cache.h"
#include "experts/expert_store.h"
#include "model/router.h"
#include "weights/expert_layout.h"

namespace edgemoe {

// Of decoded tokens. Weights are normalised: the choices of a token in a layer add up to 1.
struct LowCopyStats {
  double threshold = 1;      // 1: no low copies
  uint64_t choices = 0;      // experts chosen by routers
  uint64_t low_choices = 0;  // of those, computed with their low copies
  double weight = 0;         // of all choices
  double low_weight = 0;     // of those with low copies
  uint64_t bytes_saved = 0;  // by low copies that were read in place of their experts

  double low_share() const noexcept { return weight > 0 ? low_weight / weight : 0; }
};

class LowCopies {
 public:
  // Borrows both. `threshold` is at least 0 and below 1.
  LowCopies(double threshold, const ExpertCache& cache, const ExpertLayout& layout);

  // `routed` is one token's choice, best first, with its weights, and `needed` the experts of it
  // that the layer asks for: those whose low copies serve get the numbers of these.
  void choose(uint32_t layer, std::span<const RoutedExpert> routed,
              std::span<ExpertDemand> needed) noexcept;

  const LowCopyStats& stats() const noexcept { return stats_; }

 private:
  // The number of the expert's low copy where that serves, else of the expert.
  uint32_t number_of(uint32_t layer, uint32_t expert) noexcept;

  double threshold_;
  const ExpertCache& cache_;
  const ExpertLayout& layout_;
  LowCopyStats stats_;
};

}  // namespace edgemoe
