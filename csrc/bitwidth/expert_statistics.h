// What a pass over calibration text says about each expert: how often and how strongly it is used,
// and how strongly its output answers to an error of its weights.
//
// An expert adds w * y to the stream, y = down h, h_r = a(g_r) * u_r, g = gate x, u = up x. Sums
// over the expert's tokens t, with w_t the weight of its output there:
//
//   counts            1
//   mass              routing weight
//   weight_squared    w^2
//   input             w^2 x_c^2           for every input channel c
//   hidden            w^2 h_r^2           for every hidden unit r
//   gate_slope        w^2 (dh_r/dg_r)^2
//   up_slope          w^2 (dh_r/du_r)^2
//
// and, on request, how the inputs vary together, for the error feedback of the quantisers
// (quant/error_feedback.h); only the columns from the row's own on are summed:
//
//   input_covariance   w^2 x_c x_d for each expert, or x_c x_d over all tokens of a layer, whose
//                      experts then differ in the diagonal only
//   hidden_covariance  w^2 h_r h_s for each expert
//
// Where the router weighs the inputs (RouterSpec::weight_before_ffn), x is the weighed input and
// w is 1.
//
// Every sum takes its terms in float64 in the order of the rows, whichever thread it falls to: the
// same bits for any number of threads, budget, and split of the rows into steps. A step that fails
// leaves sums that are worth nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/expert_observer.h"
#include "model/model_spec.h"

namespace edgemoe {

// Arrays are row-major with the dimensions named here. Dense layers have zeros.
struct StatisticsShape {
  size_t num_layers = 0;
  size_t num_experts = 0;
  size_t num_used = 0;
  size_t width = 0;
  size_t expert_width = 0;  // the largest of all MoE layers
};
StatisticsShape statistics_shape(const ModelSpec& spec) noexcept;

// What covariances are summed of.
enum class CovarianceScope : uint8_t { kNone, kLayers, kExperts };

class ExpertStatistics : public ExpertObserver {
 public:
  // `batch` is the number of rows of the largest step.
  static uint64_t bytes(const ModelSpec& spec, size_t batch, size_t num_threads,
                        CovarianceScope scope) noexcept;
  // Errors: kArgument for a model without experts, kUnsupported for more than 32767 of them.
  ExpertStatistics(const ModelSpec& spec, size_t batch, size_t num_threads, CovarianceScope scope);

  void begin_step(size_t num_rows) override;
  void observe_routing(uint32_t layer, std::span<const RoutedExpert> routed) override;
  void observe_experts(uint32_t layer, const Compute& compute,
                       std::span<const ObservedExpert> experts) override;
  void observe_branch(uint32_t layer, size_t num_rows, const float* branch,
                      const float* stream) override;

  const StatisticsShape& shape() const noexcept { return shape_; }
  // [layers][experts]
  std::span<double> counts() noexcept { return part(0, num_all_); }
  std::span<double> mass() noexcept { return part(1, num_all_); }
  std::span<double> weight_squared() noexcept { return part(2, num_all_); }
  // [layers]: summed squared norms of the rows, and the number of rows
  std::span<double> output_power() noexcept { return {output_power_}; }
  std::span<double> residual_power() noexcept { return {residual_power_}; }
  std::span<double> input() noexcept {
    return input_sums(0, num_all_);
  }  // [layers][experts][width]
  // [layers][experts][expert_width]
  std::span<double> hidden() noexcept { return unit_sums(0); }
  std::span<double> gate_slope() noexcept { return unit_sums(1); }
  std::span<double> up_slope() noexcept { return unit_sums(2); }
  // float32, [layers] or [layers * experts] matrices [width][width]; empty without.
  std::span<float> input_covariance() noexcept;
  // float32, [layers * experts] matrices [expert_width][expert_width]; empty but for kExperts.
  std::span<float> hidden_covariance() noexcept;
  // The routing of the rows since the last call, [rows][layers][used], -1 in dense layers.
  std::vector<int16_t> take_routes();

 private:
  struct Item;
  std::span<double> part(size_t index, size_t count) noexcept {
    return {sums_.as<double>() + index * num_all_, count};
  }
  std::span<double> input_sums(size_t first, size_t count) noexcept {
    return {sums_.as<double>() + 3 * num_all_ + first * shape_.width, count * shape_.width};
  }
  std::span<double> unit_sums(size_t kind) noexcept {
    const size_t count = num_all_ * shape_.expert_width;
    return {sums_.as<double>() + (3 + shape_.width) * num_all_ + kind * count, count};
  }
  void add_inputs(const Item& item) noexcept;
  void add_units(const Compute& compute, const Item& item, float* scratch) noexcept;
  void add_covariances(uint32_t layer, const Compute& compute,
                       std::span<const ObservedExpert> experts);
  void add_layer_covariance(uint32_t layer, const Compute& compute, const ObservedExpert& expert);

  StatisticsShape shape_;
  kernels::Activation activation_;
  float activation_limit_;
  size_t num_all_;  // layers * experts
  AlignedBuffer sums_;
  AlignedBuffer scratch_;  // per thread
  CovarianceScope scope_;
  AlignedBuffer covariances_;  // of inputs, then of hidden units
  AlignedBuffer hidden_rows_;  // of the experts that are observed, [their tokens][expert_width]
  std::vector<uint8_t> layer_seen_;  // in the running step
  std::vector<double> output_power_;
  std::vector<double> residual_power_;
  std::vector<int16_t> routes_;
  size_t first_row_ = 0;  // of the running step in routes_
};

}  // namespace edgemoe
