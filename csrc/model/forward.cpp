#include "model/forward.h"

#include <optional>

#include "base/error.h"
#include "model/attention.h"
#include "model/ffn.h"
#include "model/norm.h"

namespace edgemoe {
namespace {

ExpertSupply supply_of(const Model& model, Phase phase) {
  ExpertSupply supply{*model.store, model.regrouper, model.look_ahead, model.whole_layers};
  if (phase == Phase::kDecode) {
    supply.cache_routing = model.cache_routing;
    supply.low_copies = model.low_copies;
  }
  return supply;
}

void norm_rows(const Model& model, const float* weight, const float* bias, size_t num_rows) {
  const size_t width = model.spec.width;
  model.compute.pool().parallel_for(num_rows, [&](size_t row, size_t) {
    norm_row(model.spec, model.compute.table(), model.work.x + row * width, weight, bias,
             model.work.normed + row * width);
  });
}

// x += residual_scale * branch, which goes through a norm first where `post_norm` is not null.
void add_branch(const Model& model, const float* post_norm, size_t num_rows) {
  const size_t width = model.spec.width;
  model.compute.pool().parallel_for(num_rows, [&](size_t row, size_t) {
    float* x = model.work.x + row * width;
    float* branch = model.work.branch + row * width;
    if (post_norm != nullptr) {
      norm_row(model.spec, model.compute.table(), branch, post_norm, nullptr, branch);
    }
    if (model.spec.residual_scale == 1.0f) {
      model.compute.table().add(branch, width, x);
    } else {
      model.compute.table().add_scaled(model.spec.residual_scale, branch, width, x);
    }
  });
}

void run_layer(const Model& model, StepContext& step, uint32_t layer, Phase phase) {
  const LayerWeights& weights = model.weights.layer(layer);
  const size_t rows = step.rows.size();
  const LayerSpec& spec = model.spec.layers[layer];
  const bool is_moe = spec.ffn.kind == FfnKind::kMoe;
  std::optional<ExpertStore::Request> request;
  // Reads run while attention computes.
  if (is_moe && model.spec.routes_early(layer)) {
    request.emplace(request_experts(step, layer, supply_of(model, phase)));
  }
  if (spec.attention.kind != AttentionKind::kNone) {
    norm_rows(model, weights.attention_norm, weights.attention_norm_bias, rows);
    attend(step, layer);
    add_branch(model, weights.post_attention_norm, rows);
  }
  if (spec.ffn.kind != FfnKind::kNone) {
    norm_rows(model, weights.ffn_norm, weights.ffn_norm_bias, rows);
    if (is_moe) {
      if (!request) request.emplace(request_experts(step, layer, supply_of(model, phase)));
      moe_ffn(step, layer, supply_of(model, phase), *request);
    } else {
      dense_ffn(step, layer);
    }
    add_branch(model, weights.ffn_post_norm, rows);
  }
  if (weights.layer_scale != nullptr) {
    model.compute.table().scale(*weights.layer_scale, rows * model.spec.width, model.work.x);
  }
}

void embed(Model& model, std::span<const StepRow> rows) {
  model.embedding.read(rows, model.compute.pool(), model.work.x);
  if (model.spec.embedding_scale == 1.0f) return;
  model.compute.table().scale(model.spec.embedding_scale, rows.size() * model.spec.width,
                              model.work.x);
}

}  // namespace

void forward(Model& model, std::span<const StepRow> rows, Phase phase,
             const std::function<bool()>& should_stop) {
  EM_CHECK(!rows.empty() && rows.size() <= model.work.batch);
  for (size_t row = 0; row < rows.size(); ++row) model.work.positions[row] = rows[row].position;
  model.rope.set_positions({model.work.positions.data(), rows.size()}, model.compute.pool());
  StepContext step{model.spec, model.weights, model.compute, model.rope,   model.work,
                   rows,       model.script,  model.trace,   model.recall, model.observer};
  if (model.observer != nullptr) model.observer->begin_step(rows.size());
  if (model.store != nullptr) {
    model.store->begin_step(phase);
    look_ahead_of_first(step, model.look_ahead, *model.store);
  }
  embed(model, rows);

  for (uint32_t layer = 0; layer < model.spec.num_layers; ++layer) {
    if (should_stop && should_stop()) throw Error(ErrorCode::kCancelled, "stopped by the caller");
    if (model.trace != nullptr) {
      model.trace->begin_layer(layer, rows[0].position, static_cast<uint32_t>(rows.size()),
                               model.store);
    }
    run_layer(model, step, layer, phase);
    if (model.trace != nullptr) model.trace->end_layer(model.store);
    if (model.recall != nullptr) model.recall->measure(step, layer);
  }
  if (model.store != nullptr) model.store->end_step();
}

void compute_logits(Model& model, size_t first, size_t count, float* out) {
  Workspace& work = model.work;
  const size_t width = model.spec.width;
  const size_t vocab_size = model.spec.vocab_size;
  model.compute.pool().parallel_for(count, [&](size_t row, size_t) {
    norm_row(model.spec, model.compute.table(), work.x + (first + row) * width,
             model.weights.output_norm(), model.weights.output_norm_bias(),
             work.normed + row * width);
  });
  work.width_rows.set(work.normed, count, width);
  model.compute.multiply(model.weights.output(), model.weights.output_bias(), work.width_rows, out,
                         vocab_size);
  const kernels::KernelTable& table = model.compute.table();
  const size_t total = count * vocab_size;
  if (model.spec.logit_scale != 1.0f) table.scale(model.spec.logit_scale, total, out);
  if (model.spec.logit_softcap != 0.0f) table.softcap(model.spec.logit_softcap, total, out);
}

}  // namespace edgemoe
