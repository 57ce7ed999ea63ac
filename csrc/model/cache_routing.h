// Cache-aware routing, an option that changes results: where the router's choice is not in memory
// and an expert that is comes close, that one is used. Never the first choice. How close it has to
// be follows from a target: the share of the routing weight that stays with the router's choice
// ("agreement") is never below it. (Cache-conditional experts, arXiv 2412.00099.)
//
// Every token of a layer adds 1 - target to a credit, and every substitution takes the weight of
// the expert that it replaces from it; there is none without credit. The fuller the credit the
// larger a difference is accepted, so a loop closes: cheap substitutions are taken first, and as
// many as the target allows. No clock: the same cache states give the same choices.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "experts/expert_cache.h"
#include "model/router.h"
#include "weights/expert_layout.h"

namespace edgemoe {

// Of decoded tokens. Weights are normalised: the choices of a token in a layer add up to 1.
struct CacheRoutingStats {
  double target = 1;           // 1: routers decide
  uint64_t choices = 0;        // experts chosen by routers
  uint64_t substitutions = 0;  // of those
  double weight = 0;           // of all choices
  double lost_weight = 0;      // of those that were substituted
  uint64_t bytes_saved = 0;    // weights of experts that were not read

  double agreement() const noexcept { return weight > 0 ? 1 - lost_weight / weight : 1; }
};

class CacheRouting {
 public:
  static constexpr double kLeastAgreement = 0.5;

  // Borrows all three. `target` is between kLeastAgreement and 1.
  CacheRouting(double target, const RouterSpec& router, const ExpertCache& cache,
               const ExpertLayout& layout);

  // Takes what choose_experts left of one token and changes `chosen`; an expert that is on its way
  // counts as resident. `selection` loses what was taken from it.
  void prefer_resident(uint32_t layer, std::span<const float> scores, std::span<float> selection,
                       std::span<RoutedExpert> chosen) noexcept;

  const CacheRoutingStats& stats() const noexcept { return stats_; }

 private:
  std::optional<uint32_t> best_resident(uint32_t layer,
                                        std::span<const float> selection) const noexcept;

  double target_;
  const RouterSpec& router_;
  const ExpertCache& cache_;
  const ExpertLayout& layout_;
  double most_credit_;
  double credit_ = 0;
  CacheRoutingStats stats_;
};

}  // namespace edgemoe
