// Shows what a step's experts compute to whoever wants to measure it. A step without an observer
// does nothing for one; results never depend on it.
#pragma once

#include <cstdint>
#include <span>

#include "model/compute.h"
#include "model/gated_network.h"
#include "model/router.h"

namespace edgemoe {

// An expert and the rows of the step that use it.
struct ObservedExpert {
  uint32_t expert = 0;
  GatedNetwork network;  // in-memory layout
  // What the expert reads: rows `token_index` of x, in the order of the step's rows. Where the
  // router weighs the inputs, they are weighed already.
  ActivationRows* x = nullptr;
  std::span<const uint32_t> token_index;
  // What the expert's outputs are multiplied with, one for each row: the routing weight, or 1 where
  // the router weighs the inputs.
  std::span<const float> output_weights;
};

// Calls come in this order: begin_step; for each MoE layer observe_routing, observe_experts any
// number of times (each expert once, in the order in which they arrive), observe_branch. A step
// that fails ends anywhere. The caller's thread makes them while no worker runs, so that an
// observer may use the pool.
class ExpertObserver {
 public:
  virtual ~ExpertObserver() = default;
  virtual void begin_step(size_t num_rows) = 0;
  // The chosen experts of every row, best first, with their routing weights.
  virtual void observe_routing(uint32_t layer, std::span<const RoutedExpert> routed) = 0;
  virtual void observe_experts(uint32_t layer, const Compute& compute,
                               std::span<const ObservedExpert> experts) = 0;
  // What the layer adds to the residual stream (before residual_scale), and the stream before that:
  // [num_rows][width] each.
  virtual void observe_branch(uint32_t layer, size_t num_rows, const float* branch,
                              const float* stream) = 0;
};

}  // namespace edgemoe
