// Routing that was recorded, in place of the router's choice: benchmarks run a model of random
// weights with the expert locality of a real one. What the model says is meaningless then, so
// nothing that generates text may use it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/router.h"

namespace edgemoe {

class RouteScript {
 public:
  // Share of the experts that looking one layer ahead names, as measured for real models
  // (arXiv 2502.12224: 77 to 89 %).
  static constexpr double kGuessRecall = 0.85;

  struct Shape {
    size_t num_steps = 0;
    size_t num_layers = 0;
    size_t num_ranks = 0;
  };
  // `experts` is [num_steps][num_layers][num_ranks]; a negative number is no expert.
  // Errors: kArgument when a dimension is 0 or the product is not experts.size().
  RouteScript(std::vector<int32_t> experts, const Shape& shape);

  // The step that position 0 takes from here on.
  void start_at(uint64_t step) noexcept { first_step_ = step; }

  // Chooses routed.size() distinct experts, each of weight 1 / routed.size(): those of the step
  // for this position, modulo num_experts. Steps and layers wrap around at their end, ranks beyond
  // routed.size() are cut; where one is missing or comes twice, the next expert that is free takes
  // its place. Requires: routed.size() <= num_experts.
  void route(uint32_t position, uint32_t layer, uint32_t num_experts,
             std::span<RoutedExpert> routed) const noexcept;

 private:
  std::vector<int32_t> experts_;
  Shape shape_;
  uint64_t first_step_ = 0;
};

}  // namespace edgemoe
