#include "model/ffn.h"

#include <algorithm>
#include <cstring>

#include "base/units.h"

namespace edgemoe {
namespace {

// A gated network down(activation(gate x) * up x) on some rows.
struct GatedNetwork {
  MatrixView gate, up, down;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
};

// The rows that a network computes: rows of `x` named by token_index (null: the first ones).
struct NetworkRows {
  ActivationRows* x = nullptr;
  const uint32_t* token_index = nullptr;
  size_t count = 0;
  float* out = nullptr;  // [count][width]
};

Product product_of(const StepContext& step, const MatrixView& matrix, const NetworkRows& rows,
                   float* out) {
  Product product;
  product.matrix = &matrix;
  product.x =
      rows.x->as(traits(matrix.type).activations, step.compute.table(), step.compute.pool());
  product.token_index = rows.token_index;
  product.num_tokens = rows.count;
  product.out = out;
  product.out_stride = matrix.rows;
  return product;
}

// Gate, up and activation in one pass of the threads: each item finishes its own rows of the
// matrices, and nothing waits in between.
void compute_hidden(const StepContext& step, const GatedNetwork& network, const NetworkRows& rows) {
  const kernels::KernelTable& table = step.compute.table();
  Workspace& work = step.work;
  const size_t width = network.gate.rows;
  const Product gate = product_of(step, network.gate, rows, work.gate);
  const Product up = product_of(step, network.up, rows, work.up);
  const size_t step_rows = step.compute.rows_per_item(width);
  step.compute.pool().parallel_for(ceil_div(width, step_rows), [&](size_t item, size_t) {
    const size_t begin = item * step_rows;
    const size_t end = std::min(width, begin + step_rows);
    step.compute.multiply_rows(gate, begin, end);
    step.compute.multiply_rows(up, begin, end);
    for (size_t token = 0; token < rows.count; ++token) {
      float* gates = work.gate + token * width + begin;
      float* ups = work.up + token * width + begin;
      if (network.gate_bias != nullptr) table.add(network.gate_bias + begin, end - begin, gates);
      if (network.up_bias != nullptr) table.add(network.up_bias + begin, end - begin, ups);
      table.gated_activation(step.spec.activation, gates, ups, end - begin,
                             step.spec.activation_limit, gates);
    }
  });
}

void compute_network(const StepContext& step, const GatedNetwork& network,
                     const NetworkRows& rows) {
  Workspace& work = step.work;
  compute_hidden(step, network, rows);
  work.inner_rows.set(work.gate, rows.count, network.gate.rows);
  step.compute.multiply(network.down, work.inner_rows, rows.out, step.spec.width);
  add_bias(step.compute, network.down_bias, step.spec.width, rows.out, rows.count, step.spec.width);
}

void route_rows(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  const RouterSpec& router = step.spec.router;
  const size_t rows = step.rows.size();
  step.compute.multiply(weights.router, work.width_rows, work.router_logits, router.num_experts);
  add_bias(step.compute, weights.router_bias, router.num_experts, work.router_logits, rows,
           router.num_experts);
  for (size_t row = 0; row < rows; ++row) {
    route(router, step.compute.table(),
          {work.router_logits + row * router.num_experts, router.num_experts},
          weights.selection_bias, {work.selection, router.num_experts},
          {work.routed.data() + row * router.num_used, router.num_used});
  }
}

// Counting sort of (row, rank) by expert: fills first_of_expert, expert_rows, place_of_routed and
// needed_experts (rising, which is file order).
void group_by_expert(StepContext& step) {
  Workspace& work = step.work;
  const RouterSpec& router = step.spec.router;
  const size_t num_routed = step.rows.size() * router.num_used;
  std::fill(work.first_of_expert.begin(), work.first_of_expert.end(), 0u);
  for (size_t i = 0; i < num_routed; ++i) ++work.first_of_expert[work.routed[i].expert + 1];
  work.needed_experts.clear();
  for (uint32_t expert = 0; expert < router.num_experts; ++expert) {
    const uint32_t count = work.first_of_expert[expert + 1];
    if (count != 0) {
      work.needed_experts.push_back(
          {expert, static_cast<float>(count) / static_cast<float>(step.rows.size())});
    }
    work.first_of_expert[expert + 1] += work.first_of_expert[expert];
  }
  for (size_t i = 0; i < num_routed; ++i) {
    uint32_t& next = work.first_of_expert[work.routed[i].expert];
    work.place_of_routed[i] = next;
    work.expert_rows[next] = static_cast<uint32_t>(i / router.num_used);
    ++next;
  }
  // The counters have moved on by one expert each; move them back.
  for (uint32_t expert = router.num_experts; expert > 0; --expert) {
    work.first_of_expert[expert] = work.first_of_expert[expert - 1];
  }
  work.first_of_expert[0] = 0;
}

void regroup_expert(const ReadyExpert& expert, ExpertStore& store, Regrouper& regrouper) {
  if (expert.regrouped) return;
  for (const MatrixView& matrix : expert.matrices) {
    if (!matrix) continue;
    // Slots are our memory; the view is read-only for everybody else.
    regrouper.regroup_matrix(matrix.type, const_cast<std::byte*>(matrix.data), matrix.rows,
                             matrix.columns);
  }
  store.mark_regrouped(expert.id);
}

GatedNetwork network_of(const LayerWeights& weights, const ReadyExpert& ready, size_t width,
                        size_t hidden) {
  const auto row_of = [&](const float* biases, size_t size) {
    return biases == nullptr ? nullptr : biases + ready.id.expert * size;
  };
  GatedNetwork network;
  network.gate = ready.matrices[static_cast<size_t>(ExpertMatrix::kGate)];
  network.up = ready.matrices[static_cast<size_t>(ExpertMatrix::kUp)];
  network.down = ready.matrices[static_cast<size_t>(ExpertMatrix::kDown)];
  network.gate_bias = row_of(weights.expert_gate_bias, hidden);
  network.up_bias = row_of(weights.expert_up_bias, hidden);
  network.down_bias = row_of(weights.expert_down_bias, width);
  return network;
}

void compute_shared(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  if (step.spec.layers[layer].ffn.shared_width == 0) {
    std::memset(work.branch, 0, rows * width * sizeof(float));
    return;
  }
  const GatedNetwork network{weights.shared_gate, weights.shared_up, weights.shared_down};
  compute_network(step, network, {&work.width_rows, nullptr, rows, work.branch});
  if (!weights.shared_router) return;
  step.compute.multiply(weights.shared_router, work.width_rows, work.shared_weights, 1);
  step.compute.table().sigmoid(work.shared_weights, rows);
  for (size_t row = 0; row < rows; ++row) {
    step.compute.table().scale(work.shared_weights[row], width, work.branch + row * width);
  }
}

// The inputs of the experts times their routing weights, which are 1 from here on.
void scale_inputs(StepContext& step) {
  Workspace& work = step.work;
  const size_t width = step.spec.width;
  const size_t used = step.spec.router.num_used;
  const size_t num_routed = step.rows.size() * used;
  step.compute.pool().parallel_for(num_routed, [&](size_t i, size_t) {
    float* input = work.scaled_input + work.place_of_routed[i] * width;
    std::memcpy(input, work.normed + i / used * width, width * sizeof(float));
    step.compute.table().scale(work.routed[i].weight, width, input);
    work.routed[i].weight = 1.0f;
  });
  work.scaled_rows.set(work.scaled_input, num_routed, width);
}

// The rows of one expert, whose results go to their places in expert_out.
NetworkRows rows_of_expert(const StepContext& step, uint32_t expert) {
  Workspace& work = step.work;
  const uint32_t first = work.first_of_expert[expert];
  NetworkRows rows;
  rows.count = work.first_of_expert[expert + 1] - first;
  rows.out = work.expert_out + size_t{first} * step.spec.width;
  const bool scaled = step.spec.router.weight_before_ffn;
  rows.x = scaled ? &work.scaled_rows : &work.width_rows;
  rows.token_index = (scaled ? work.own_index : work.expert_rows).data() + first;
  return rows;
}

// branch += sum over ranks, in rank order, whatever the order in which the experts arrived.
void add_experts(StepContext& step) {
  Workspace& work = step.work;
  const size_t width = step.spec.width;
  const size_t used = step.spec.router.num_used;
  step.compute.pool().parallel_for(step.rows.size(), [&](size_t row, size_t) {
    for (size_t i = row * used; i < (row + 1) * used; ++i) {
      step.compute.table().add_scaled(work.routed[i].weight,
                                      work.expert_out + work.place_of_routed[i] * width, width,
                                      work.branch + row * width);
    }
  });
}

}  // namespace

void dense_ffn(StepContext& step, uint32_t layer) {
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  const GatedNetwork network{weights.ffn_gate, weights.ffn_up, weights.ffn_down};
  compute_network(step, network, {&work.width_rows, nullptr, step.rows.size(), work.branch});
}

void moe_ffn(StepContext& step, uint32_t layer, ExpertStore& store, Regrouper& regrouper) {
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  route_rows(step, layer);
  group_by_expert(step);
  if (step.spec.router.weight_before_ffn) scale_inputs(step);
  auto request = store.request(layer, work.needed_experts);
  compute_shared(step, layer);  // while the reads run
  while (const std::optional<ReadyExpert> ready = request.next()) {
    regroup_expert(*ready, store, regrouper);
    const size_t hidden = step.spec.layers[layer].ffn.width;
    compute_network(step, network_of(weights, *ready, step.spec.width, hidden),
                    rows_of_expert(step, ready->id.expert));
  }
  add_experts(step);
}

}  // namespace edgemoe
