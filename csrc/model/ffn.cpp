#include "model/ffn.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "model/gated_network.h"
#include "model/norm.h"
#include "model/router_input.h"
#include "model/step_recording.h"

namespace edgemoe {
namespace {

// The rows that the experts of the layer read: those of work.normed, unless they have a norm of
// their own or are narrow.
ActivationRows& expert_rows(StepContext& step, uint32_t layer) {
  const FfnSpec& ffn = step.spec.layers[layer].ffn;
  return ffn.experts_have_norm || ffn.narrow_width != 0 ? step.work.expert_input_rows
                                                        : step.work.width_rows;
}

// Of what the experts of the layer read and add.
size_t expert_stream_width(const StepContext& step, uint32_t layer) {
  const uint32_t narrow = step.spec.layers[layer].ffn.narrow_width;
  return narrow != 0 ? narrow : step.spec.width;
}

// Experts with a norm of their own: it is taken where the layer routes.
void norm_expert_rows(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  const float* norm = step.weights.layer(layer).expert_norm;
  step.compute.pool().parallel_for(rows, [&](size_t row, size_t) {
    norm_row(step.spec, step.compute.table(), work.x + row * width, norm, nullptr,
             work.expert_input + row * width);
  });
  work.expert_input_rows.set(work.expert_input, rows, width);
}

// What the router reads: rows whose rounding it shares with experts, or others in work.branch.
ActivationRows& router_rows(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const bool from_block = step.spec.router.reads_block_input;
  if (!from_block && step.weights.layer(layer).router_norm == nullptr) {
    const bool own_norm = step.spec.layers[layer].ffn.experts_have_norm;
    return own_norm ? work.expert_input_rows : work.width_rows;
  }
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  step.compute.pool().parallel_for(rows, [&](size_t row, size_t) {
    router_input(step, layer, work.x + row * width, work.branch + row * width);
  });
  work.router_rows.set(work.branch, rows, width);
  return work.router_rows;
}

void route_rows(StepContext& step, uint32_t layer, CacheRouting* cache_routing) {
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  const RouterSpec& router = step.spec.router;
  const size_t rows = step.rows.size();
  step.compute.multiply(weights.router, weights.router_bias, router_rows(step, layer),
                        work.router_logits, router.num_experts);
  for (size_t row = 0; row < rows; ++row) {
    const std::span routed(work.routed.data() + row * router.num_used, router.num_used);
    if (step.script != nullptr) {
      step.script->route(step.rows[row].position, layer, router.num_experts, routed);
      continue;
    }
    const std::span scores(work.router_logits + row * router.num_experts, router.num_experts);
    const std::span selection(work.selection, router.num_experts);
    choose_experts(router, step.compute.table(), scores, weights.selection_bias, selection, routed);
    if (cache_routing != nullptr) {
      cache_routing->prefer_resident(layer, scores, selection, routed);
    }
    weigh_experts(router, routed);
  }
}

// Counting sort of (row, rank) by expert: fills first_of_expert, expert_rows, place_of_routed and
// needed_experts (rising, which is file order; those without rows too when `all` are asked for).
void group_by_expert(StepContext& step, bool all) {
  Workspace& work = step.work;
  const RouterSpec& router = step.spec.router;
  const size_t num_routed = step.rows.size() * router.num_used;
  std::fill(work.first_of_expert.begin(), work.first_of_expert.end(), 0u);
  for (size_t i = 0; i < num_routed; ++i) ++work.first_of_expert[work.routed[i].expert + 1];
  work.needed_experts.clear();
  for (uint32_t expert = 0; expert < router.num_experts; ++expert) {
    const uint32_t count = work.first_of_expert[expert + 1];
    if (count != 0 || all) {
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

GatedNetwork network_of(const LayerWeights& weights, const ReadyExpert& ready) {
  GatedNetwork network;
  network.gate = ready.matrices[static_cast<size_t>(ExpertMatrix::kGate)];
  network.up = ready.matrices[static_cast<size_t>(ExpertMatrix::kUp)];
  network.down = ready.matrices[static_cast<size_t>(ExpertMatrix::kDown)];
  const auto row_of = [&](const float* biases, const MatrixView& matrix) {
    return biases == nullptr ? nullptr : biases + ready.expert * matrix.rows;
  };
  network.gate_bias = row_of(weights.expert_gate_bias, network.gate);
  network.up_bias = row_of(weights.expert_up_bias, network.up);
  network.down_bias = row_of(weights.expert_down_bias, network.down);
  return network;
}

NetworkJob shared_job(const StepContext& step, const LayerWeights& weights) {
  NetworkJob job;
  job.network = {weights.shared_gate, weights.shared_up, weights.shared_down};
  job.x = &step.work.width_rows;
  job.num_rows = step.rows.size();
  job.hidden = step.work.hidden;
  job.out = step.work.branch;
  return job;
}

bool has_rows(const Workspace& work, const ReadyExpert& ready) {
  return work.first_of_expert[ready.expert] != work.first_of_expert[ready.expert + 1];
}

// The results go to their places in expert_out.
NetworkJob expert_job(StepContext& step, uint32_t layer, const ReadyExpert& ready,
                      const ExpertSupply& supply) {
  Workspace& work = step.work;
  const FfnSpec& ffn = step.spec.layers[layer].ffn;
  const uint32_t first = work.first_of_expert[ready.expert];
  const bool scaled = step.spec.router.weight_before_ffn;
  NetworkJob job;
  job.network = network_of(step.weights.layer(layer), ready);
  job.x = scaled ? &work.scaled_rows : &expert_rows(step, layer);
  job.token_index = (scaled ? work.own_index : work.expert_rows).data() + first;
  job.num_rows = work.first_of_expert[ready.expert + 1] - first;
  job.hidden = work.hidden + hidden_bytes(step.rows.size(), ffn.shared_width) +
               hidden_place(first, ready.expert, ffn.width);
  job.out = work.expert_out + first * expert_stream_width(step, layer);
  job.computes_hidden = ready.part != ExpertPart::kDown;
  job.computes_down = ready.part != ExpertPart::kHidden;
  if (!ready.regrouped) {
    job.regrouper = &supply.regrouper;
  }
  return job;
}

// Multiplies the shared expert's output by the sigmoid of its own router.
void weigh_shared(StepContext& step, const LayerWeights& weights) {
  Workspace& work = step.work;
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  step.compute.multiply(weights.shared_router, nullptr, work.width_rows, work.shared_weights, 1);
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

// Shows the experts that were just computed to the step's observer.
void observe(StepContext& step, uint32_t layer, std::span<const ReadyExpert> ready) {
  Workspace& work = step.work;
  const size_t used = step.spec.router.num_used;
  const bool scaled = step.spec.router.weight_before_ffn;
  std::vector<ObservedExpert> experts;
  std::vector<float> weights;
  weights.reserve(step.rows.size() * used);  // the spans below stay valid
  for (const ReadyExpert& one : ready) {
    if (!has_rows(work, one)) continue;
    const uint32_t first = work.first_of_expert[one.expert];
    const uint32_t end = work.first_of_expert[one.expert + 1];
    for (uint32_t place = first; place < end; ++place) {
      const auto* ranks = work.routed.data() + work.expert_rows[place] * used;
      const auto* chosen = std::find_if(ranks, ranks + used - 1, [&](const RoutedExpert& routed) {
        return routed.expert == one.expert;
      });
      weights.push_back(chosen->weight);
    }
    ObservedExpert expert;
    expert.expert = one.expert;
    expert.network = network_of(step.weights.layer(layer), one);
    expert.x = scaled ? &work.scaled_rows : &expert_rows(step, layer);
    expert.token_index = {(scaled ? work.own_index : work.expert_rows).data() + first, end - first};
    expert.output_weights = {weights.data() + weights.size() - (end - first), end - first};
    experts.push_back(expert);
  }
  step.observer->observe_experts(layer, step.compute, experts);
}

// out [rows][width] += sum over ranks, in rank order, whatever the order in which the experts
// arrived.
void add_experts(StepContext& step, size_t width, float* out) {
  Workspace& work = step.work;
  const size_t used = step.spec.router.num_used;
  step.compute.pool().parallel_for(step.rows.size(), [&](size_t row, size_t) {
    for (size_t i = row * used; i < (row + 1) * used; ++i) {
      step.compute.table().add_scaled(work.routed[i].weight,
                                      work.expert_out + work.place_of_routed[i] * width, width,
                                      out + row * width);
    }
  });
}

// branch += what the experts give, each part after its own norm.
void add_normed_parts(StepContext& step, const LayerWeights& weights) {
  Workspace& work = step.work;
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  const kernels::KernelTable& table = step.compute.table();
  float* experts = work.normed;  // read by nobody from here on
  std::memset(experts, 0, rows * width * sizeof(float));
  add_experts(step, width, experts);
  step.compute.pool().parallel_for(rows, [&](size_t row, size_t) {
    float* branch = work.branch + row * width;
    float* part = experts + row * width;
    if (weights.shared_post_norm != nullptr) {
      norm_row(step.spec, table, branch, weights.shared_post_norm, nullptr, branch);
    }
    if (weights.expert_post_norm != nullptr) {
      norm_row(step.spec, table, part, weights.expert_post_norm, nullptr, part);
    }
    table.add(part, width, branch);
  });
}

// What narrow experts read.
void narrow_rows(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const size_t narrow = expert_stream_width(step, layer);
  step.compute.multiply(step.weights.layer(layer).expert_narrow, nullptr, work.width_rows,
                        work.expert_input, narrow);
  work.expert_input_rows.set(work.expert_input, step.rows.size(), narrow);
}

// branch += what narrow experts add up to.
void add_narrow_experts(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const size_t rows = step.rows.size();
  const size_t width = step.spec.width;
  const size_t narrow = expert_stream_width(step, layer);
  float* sum = work.expert_input;  // read by nobody from here on, as work.normed
  std::memset(sum, 0, rows * narrow * sizeof(float));
  add_experts(step, narrow, sum);
  work.expert_input_rows.set(sum, rows, narrow);
  step.compute.multiply(step.weights.layer(layer).expert_widen, nullptr, work.expert_input_rows,
                        work.normed, width);
  step.compute.pool().parallel_for(rows, [&](size_t row, size_t) {
    step.compute.table().add(work.normed + row * width, width, work.branch + row * width);
  });
}

}  // namespace

void dense_ffn(StepContext& step, uint32_t layer) {
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  NetworkJob job;
  job.network = {weights.ffn_gate, weights.ffn_up, weights.ffn_down};
  job.x = &work.width_rows;
  job.num_rows = step.rows.size();
  job.hidden = work.hidden;
  job.out = work.branch;
  compute_networks(step, {&job, 1});
}

void visit_experts(const ExpertSupply& supply, uint32_t layer, uint32_t first, uint32_t count,
                   const std::function<void(const ReadyExpert&)>& visit) {
  std::vector<ExpertDemand> wanted(count);
  for (uint32_t i = 0; i < count; ++i) wanted[i].expert = first + i;
  auto request = supply.store.request(layer, wanted);
  std::span<const ReadyExpert> ready = request.next(Wait::kAtLeastOne);
  for (; !ready.empty(); ready = request.next(Wait::kAtLeastOne)) {
    for (const ReadyExpert& expert : ready) {
      regroup_expert(expert, supply.store, supply.regrouper);
      visit(expert);
    }
  }
}

ExpertStore::Request request_experts(StepContext& step, uint32_t layer,
                                     const ExpertSupply& supply) {
  Workspace& work = step.work;
  const FfnSpec& ffn = step.spec.layers[layer].ffn;
  if (!step.spec.routes_early(layer))
    work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  if (ffn.experts_have_norm) norm_expert_rows(step, layer);
  if (step.recall != nullptr) step.recall->keep_own(step);
  route_rows(step, layer, supply.cache_routing);
  group_by_expert(step, supply.whole_layers);
  if (supply.low_copies != nullptr && step.rows.size() == 1) {
    supply.low_copies->choose(layer, {work.routed.data(), step.spec.router.num_used},
                              work.needed_experts);
  }
  auto request = supply.store.request(layer, work.needed_experts);
  record_routing(step, layer, supply.store);
  if (step.observer != nullptr) {
    step.observer->observe_routing(
        layer, {work.routed.data(), step.rows.size() * step.spec.router.num_used});
  }
  return request;
}

void moe_ffn(StepContext& step, uint32_t layer, const ExpertSupply& supply,
             ExpertStore::Request& request) {
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  const bool has_shared = step.spec.layers[layer].ffn.shared_width != 0;
  if (step.spec.routes_early(layer))
    work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  if (step.recall != nullptr) step.recall->keep_early(step);
  if (supply.whole_layers) {
    announce_next_layer(step, layer, supply.store);
  } else {
    look_ahead(step, layer, supply.look_ahead, supply.store);
  }
  if (step.spec.router.weight_before_ffn) scale_inputs(step);  // leaves weights of 1
  if (weights.expert_narrow) narrow_rows(step, layer);
  // First what is in memory, with the shared expert, while the reads run; then whatever arrives.
  work.jobs.clear();
  if (has_shared) work.jobs.push_back(shared_job(step, weights));
  std::span<const ReadyExpert> ready = request.next(Wait::kNo);
  size_t missing = work.needed_experts.size();
  do {
    for (const ReadyExpert& expert : ready) {
      if (expert.part != ExpertPart::kHidden) --missing;
      if (has_rows(work, expert)) work.jobs.push_back(expert_job(step, layer, expert, supply));
    }
    {
      const OverlapScope overlap(step.trace, missing > 0);
      compute_networks(step, work.jobs);
    }
    for (const ReadyExpert& expert : ready) {
      if (has_rows(work, expert)) supply.store.mark_regrouped(expert.id);
    }
    if (step.observer != nullptr) observe(step, layer, ready);
    work.jobs.clear();
    ready = request.next(Wait::kAtLeastOne);
  } while (!ready.empty());
  if (!has_shared) {
    std::memset(work.branch, 0, step.rows.size() * step.spec.width * sizeof(float));
  } else if (weights.shared_router) {
    weigh_shared(step, weights);
  }
  if (weights.shared_post_norm != nullptr || weights.expert_post_norm != nullptr) {
    add_normed_parts(step, weights);
  } else if (weights.expert_widen) {
    add_narrow_experts(step, layer);
  } else {
    add_experts(step, step.spec.width, work.branch);
  }
  const float scale = step.spec.layers[layer].ffn.branch_scale;
  if (scale != 1.0f) {
    step.compute.table().scale(scale, step.rows.size() * step.spec.width, work.branch);
  }
  if (step.observer != nullptr) {
    step.observer->observe_branch(layer, step.rows.size(), work.branch, work.x);
  }
}

}  // namespace edgemoe
