#include "bitwidth/expert_statistics.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/units.h"
#include "bitwidth/activation_slopes.h"

namespace edgemoe {
namespace {

// Input channels or hidden units of an item of work, and the tokens whose products are computed
// together: gate, up, hidden and logistic of a tile stay in the second-level cache.
constexpr size_t kItemColumns = 256;
constexpr size_t kTileTokens = 32;
constexpr size_t kTileFloats = kItemColumns * kTileTokens;
constexpr size_t kTilesOfScratch = 4;
constexpr uint64_t kScratchBytes = kTilesOfScratch * kTileFloats * sizeof(float);

uint64_t sums_count(const StatisticsShape& shape) noexcept {
  return uint64_t{shape.num_layers} * shape.num_experts *
         (3 + shape.width + 3 * shape.expert_width);
}

}  // namespace

// Columns [first, first + count) of the inputs of an expert, or as many of its hidden units.
struct ExpertStatistics::Item {
  const ObservedExpert* expert = nullptr;
  Activations gate_x;
  Activations up_x;
  Activations values;
  size_t index = 0;  // layer * num_experts + expert
  bool of_inputs = false;
  size_t first = 0;
  size_t count = 0;
  float* hidden_rows = nullptr;  // [tokens][expert_width], to be kept; or null
};

namespace {

// Rows of a covariance that are an item of work.
constexpr size_t kCovarianceRows = 16;

uint64_t input_covariance_floats(const StatisticsShape& shape, CovarianceScope scope) noexcept {
  const uint64_t matrix = uint64_t{shape.width} * shape.width;
  if (scope == CovarianceScope::kNone) return 0;
  return matrix * shape.num_layers * (scope == CovarianceScope::kLayers ? 1 : shape.num_experts);
}

uint64_t hidden_covariance_floats(const StatisticsShape& shape, CovarianceScope scope) noexcept {
  if (scope != CovarianceScope::kExperts) return 0;
  return uint64_t{shape.expert_width} * shape.expert_width * shape.num_layers * shape.num_experts;
}

uint64_t hidden_rows_floats(const StatisticsShape& shape, size_t batch,
                            CovarianceScope scope) noexcept {
  if (scope != CovarianceScope::kExperts) return 0;
  return uint64_t{batch} * shape.num_used * shape.expert_width;
}

// Vectors whose outer products are summed: row t is at values + index(t) * columns.
struct WeighedRows {
  const float* values;
  size_t columns;
  const uint32_t* index;  // null: t
  const float* weights;   // null: 1
  size_t count;
};

// sums[i][j] += w_t^2 row_t[i] row_t[j] for rows i of one item and columns j >= i.
void add_outer_products(const kernels::KernelTable& table, const WeighedRows& rows, size_t item,
                        float* sums) noexcept {
  const size_t first = item * kCovarianceRows;
  const size_t last = std::min(rows.columns, first + kCovarianceRows);
  for (size_t i = first; i < last; ++i) {
    float* row_sums = sums + i * rows.columns + i;
    for (size_t t = 0; t < rows.count; ++t) {
      const float* row = rows.values + (rows.index == nullptr ? t : rows.index[t]) * rows.columns;
      const float weight = rows.weights == nullptr ? 1.0f : rows.weights[t];
      table.add_scaled(weight * weight * row[i], row + i, rows.columns - i, row_sums);
    }
  }
}

}  // namespace

StatisticsShape statistics_shape(const ModelSpec& spec) noexcept {
  StatisticsShape shape;
  shape.num_layers = spec.num_layers;
  shape.num_experts = spec.router.num_experts;
  shape.num_used = spec.router.num_used;
  shape.width = spec.width;
  for (const LayerSpec& layer : spec.layers) {
    if (layer.ffn.kind != FfnKind::kMoe) continue;
    shape.expert_width = std::max<size_t>(shape.expert_width, layer.ffn.width);
  }
  return shape;
}

uint64_t ExpertStatistics::bytes(const ModelSpec& spec, size_t batch, size_t num_threads,
                                 CovarianceScope scope) noexcept {
  constexpr uint64_t kRouteCopies = 3;  // here, taken, in Python
  const StatisticsShape shape = statistics_shape(spec);
  const uint64_t routes = uint64_t{batch} * shape.num_layers * shape.num_used * sizeof(int16_t);
  const uint64_t floats = input_covariance_floats(shape, scope) +
                          hidden_covariance_floats(shape, scope) +
                          hidden_rows_floats(shape, batch, scope);
  return sums_count(shape) * sizeof(double) + floats * sizeof(float) + num_threads * kScratchBytes +
         kRouteCopies * routes;
}

ExpertStatistics::ExpertStatistics(const ModelSpec& spec, size_t batch, size_t num_threads,
                                   CovarianceScope scope)
    : shape_(statistics_shape(spec)),
      activation_(spec.activation),
      activation_limit_(spec.activation_limit),
      num_all_(shape_.num_layers * shape_.num_experts),
      scope_(scope),
      output_power_(shape_.num_layers),
      residual_power_(shape_.num_layers) {
  if (!spec.is_moe()) {
    throw Error(ErrorCode::kArgument, "the model has no experts; there is nothing to profile");
  }
  if (shape_.num_experts > size_t{std::numeric_limits<int16_t>::max()}) {
    throw Error(ErrorCode::kUnsupported,
                "a profile holds at most 32767 experts of a layer; this "
                "model has " +
                    std::to_string(shape_.num_experts));
  }
  sums_ = AlignedBuffer(sums_count(shape_) * sizeof(double));
  scratch_ = AlignedBuffer(num_threads * kScratchBytes);
  if (scope != CovarianceScope::kNone) {
    covariances_ = AlignedBuffer(
        (input_covariance_floats(shape_, scope) + hidden_covariance_floats(shape_, scope)) *
        sizeof(float));
    hidden_rows_ = AlignedBuffer(std::max<uint64_t>(1, hidden_rows_floats(shape_, batch, scope)) *
                                 sizeof(float));
  }
  routes_.reserve(batch * shape_.num_layers * shape_.num_used);
}

std::span<float> ExpertStatistics::input_covariance() noexcept {
  return {covariances_.as<float>(), input_covariance_floats(shape_, scope_)};
}

std::span<float> ExpertStatistics::hidden_covariance() noexcept {
  return {covariances_.as<float>() + input_covariance_floats(shape_, scope_),
          hidden_covariance_floats(shape_, scope_)};
}

void ExpertStatistics::begin_step(size_t num_rows) {
  layer_seen_.assign(shape_.num_layers, 0);
  const size_t row_size = shape_.num_layers * shape_.num_used;
  first_row_ = routes_.size() / row_size;
  routes_.resize(routes_.size() + num_rows * row_size, int16_t{-1});
}

void ExpertStatistics::observe_routing(uint32_t layer, std::span<const RoutedExpert> routed) {
  const size_t used = shape_.num_used;
  for (size_t i = 0; i < routed.size(); ++i) {
    const size_t row = first_row_ + i / used;
    const size_t place = (row * shape_.num_layers + layer) * used + i % used;
    routes_[place] = static_cast<int16_t>(routed[i].expert);
    const size_t index = layer * shape_.num_experts + routed[i].expert;
    counts()[index] += 1.0;
    mass()[index] += double{routed[i].weight};
  }
}

std::vector<int16_t> ExpertStatistics::take_routes() {
  std::vector<int16_t> taken(routes_);
  routes_.clear();
  first_row_ = 0;
  return taken;
}

void ExpertStatistics::observe_experts(uint32_t layer, const Compute& compute,
                                       std::span<const ObservedExpert> experts) {
  ThreadPool& pool = compute.pool();
  std::vector<Item> items;
  float* hidden_rows = scope_ == CovarianceScope::kExperts ? hidden_rows_.as<float>() : nullptr;
  for (const ObservedExpert& expert : experts) {
    Item item;
    item.expert = &expert;
    if (!expert.network.gate || expert.x->columns() != shape_.width) {
      throw Error(ErrorCode::kUnsupported,
                  "the experts of this model have no gate matrix, or are narrower than its stream; "
                  "profiles of those are not measured yet");
    }
    const auto as = [&](ActivationEncoding encoding) {
      return expert.x->as(encoding, compute.table(), pool);
    };
    item.gate_x = as(traits(expert.network.gate.type).activations);
    item.up_x = as(traits(expert.network.up.type).activations);
    item.values = as(ActivationEncoding::kF32);
    item.index = layer * shape_.num_experts + expert.expert;
    for (const float weight : expert.output_weights) {
      weight_squared()[item.index] += double{weight} * double{weight};
    }
    item.hidden_rows = hidden_rows;
    if (hidden_rows != nullptr) hidden_rows += expert.token_index.size() * shape_.expert_width;
    for (const bool of_inputs : {false, true}) {
      item.of_inputs = of_inputs;
      const size_t columns = of_inputs ? shape_.width : expert.network.gate.rows;
      for (item.first = 0; item.first < columns; item.first += kItemColumns) {
        item.count = std::min(kItemColumns, columns - item.first);
        items.push_back(item);
      }
    }
  }
  pool.parallel_for(items.size(), [&](size_t i, size_t worker) {
    if (items[i].of_inputs) return add_inputs(items[i]);
    add_units(compute, items[i], scratch_.as<float>() + worker * kTilesOfScratch * kTileFloats);
  });
  if (experts.empty()) return;
  if (scope_ == CovarianceScope::kExperts) add_covariances(layer, compute, experts);
  if (scope_ == CovarianceScope::kLayers && layer_seen_[layer] == 0) {
    layer_seen_[layer] = 1;
    add_layer_covariance(layer, compute, experts[0]);
  }
}

// Of every observed expert. Items are rows of one matrix, which one thread sums.
void ExpertStatistics::add_covariances(uint32_t layer, const Compute& compute,
                                       std::span<const ObservedExpert> experts) {
  ThreadPool& pool = compute.pool();
  const size_t input_items = ceil_div(shape_.width, kCovarianceRows);
  const size_t hidden_items = ceil_div(shape_.expert_width, kCovarianceRows);
  const size_t items = input_items + hidden_items;
  std::vector<WeighedRows> inputs;
  std::vector<WeighedRows> hidden;
  const float* hidden_rows = hidden_rows_.as<float>();
  for (const ObservedExpert& expert : experts) {
    const size_t count = expert.token_index.size();
    const Activations x = expert.x->as(ActivationEncoding::kF32, compute.table(), pool);
    inputs.push_back(
        {x.values, shape_.width, expert.token_index.data(), expert.output_weights.data(), count});
    hidden.push_back(
        {hidden_rows, shape_.expert_width, nullptr, expert.output_weights.data(), count});
    hidden_rows += count * shape_.expert_width;
  }
  pool.parallel_for(experts.size() * items, [&](size_t i, size_t) {
    const size_t place = i / items;
    const size_t index = layer * shape_.num_experts + experts[place].expert;
    if (i % items < input_items) {
      add_outer_products(compute.table(), inputs[place], i % items,
                         input_covariance().data() + index * shape_.width * shape_.width);
    } else {
      add_outer_products(
          compute.table(), hidden[place], i % items - input_items,
          hidden_covariance().data() + index * shape_.expert_width * shape_.expert_width);
    }
  });
}

// Of all rows of the step, whichever expert they go to.
void ExpertStatistics::add_layer_covariance(uint32_t layer, const Compute& compute,
                                            const ObservedExpert& expert) {
  ThreadPool& pool = compute.pool();
  const Activations x = expert.x->as(ActivationEncoding::kF32, compute.table(), pool);
  const WeighedRows rows{x.values, shape_.width, nullptr, nullptr, expert.x->rows()};
  float* sums = input_covariance().data() + size_t{layer} * shape_.width * shape_.width;
  pool.parallel_for(ceil_div(shape_.width, kCovarianceRows), [&](size_t item, size_t) {
    add_outer_products(compute.table(), rows, item, sums);
  });
}

void ExpertStatistics::add_inputs(const Item& item) noexcept {
  const ObservedExpert& expert = *item.expert;
  double* sums = input_sums(item.index, 1).data() + item.first;
  for (size_t token = 0; token < expert.token_index.size(); ++token) {
    const double weight = expert.output_weights[token];
    const double squared = weight * weight;
    const float* x = item.values.values + expert.token_index[token] * shape_.width + item.first;
    for (size_t i = 0; i < item.count; ++i) sums[i] += squared * (double{x[i]} * double{x[i]});
  }
}

namespace {

void multiply_tile(const Compute& compute, const MatrixView& matrix, const float* bias,
                   Product product, size_t first, size_t count) {
  const MatrixView rows = rows_from(matrix, first);
  product.matrix = &rows;
  product.bias = bias == nullptr ? nullptr : bias + first;
  product.out_stride = count;
  compute.multiply_rows(product, 0, count);
}

}  // namespace

void ExpertStatistics::add_units(const Compute& compute, const Item& item,
                                 float* scratch) noexcept {
  const ObservedExpert& expert = *item.expert;
  const GatedNetwork& network = expert.network;
  const kernels::KernelTable& table = compute.table();
  const size_t count = item.count;
  const size_t place = item.index * shape_.expert_width + item.first;
  double* hidden_sums = hidden().data() + place;
  double* gate_sums = gate_slope().data() + place;
  double* up_sums = up_slope().data() + place;
  float* gate = scratch;
  float* up = gate + kTileFloats;
  float* hidden = up + kTileFloats;
  float* logistic = hidden + kTileFloats;
  for (size_t first = 0; first < expert.token_index.size(); first += kTileTokens) {
    Product product;
    product.token_index = expert.token_index.data() + first;
    product.num_tokens = std::min(kTileTokens, expert.token_index.size() - first);
    product.x = item.gate_x;
    product.out = gate;
    multiply_tile(compute, network.gate, network.gate_bias, product, item.first, count);
    product.x = item.up_x;
    product.out = up;
    multiply_tile(compute, network.up, network.up_bias, product, item.first, count);
    const size_t total = product.num_tokens * count;
    table.gated_activation(activation_, gate, up, total, activation_limit_, hidden);
    for (size_t i = 0; i < total; ++i) {
      logistic[i] = logistic_input(activation_, gate[i], activation_limit_);
    }
    table.sigmoid(logistic, total);
    if (item.hidden_rows != nullptr) {
      for (size_t token = 0; token < product.num_tokens; ++token) {
        std::copy_n(hidden + token * count, count,
                    item.hidden_rows + (first + token) * shape_.expert_width + item.first);
      }
      if (item.first + count == network.gate.rows) {
        for (size_t token = 0; token < product.num_tokens; ++token) {
          std::fill_n(item.hidden_rows + (first + token) * shape_.expert_width + network.gate.rows,
                      shape_.expert_width - network.gate.rows, 0.0f);
        }
      }
    }
    for (size_t i = 0; i < total; ++i) {
      const double weight = expert.output_weights[first + i / count];
      const double squared = weight * weight;
      const size_t unit = i % count;
      const HiddenSlopes slopes =
          hidden_slopes(activation_, gate[i], up[i], logistic[i], activation_limit_);
      hidden_sums[unit] += squared * (double{hidden[i]} * double{hidden[i]});
      gate_sums[unit] += squared * (slopes.of_gate * slopes.of_gate);
      up_sums[unit] += squared * (slopes.of_up * slopes.of_up);
    }
  }
}

namespace {

double squared_norm(const float* row, size_t count) noexcept {
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) sum += double{row[i]} * double{row[i]};
  return sum;
}

}  // namespace

void ExpertStatistics::observe_branch(uint32_t layer, size_t num_rows, const float* branch,
                                      const float* stream) {
  for (size_t row = 0; row < num_rows; ++row) {
    output_power_[layer] += squared_norm(branch + row * shape_.width, shape_.width);
    residual_power_[layer] += squared_norm(stream + row * shape_.width, shape_.width);
  }
}

}  // namespace edgemoe
