#include "model/layer.h"

#include <optional>

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

}  // namespace

void norm_rows(const Model& model, const float* x, const float* weight, const float* bias,
               size_t num_rows) {
  const size_t width = model.spec.width;
  model.compute.pool().parallel_for(num_rows, [&](size_t row, size_t) {
    norm_row(model.spec, model.compute.table(), x + row * width, weight, bias,
             model.work.normed + row * width);
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
    norm_rows(model, model.work.x, weights.attention_norm, weights.attention_norm_bias, rows);
    attend(step, layer);
    add_branch(model, weights.post_attention_norm, rows);
  }
  if (spec.cross.kind != AttentionKind::kNone) {
    norm_rows(model, model.work.x, weights.cross_norm, nullptr, rows);
    attend_cross(step, layer);
    add_branch(model, nullptr, rows);
  }
  if (spec.ffn.kind != FfnKind::kNone) {
    norm_rows(model, model.work.x, weights.ffn_norm, weights.ffn_norm_bias, rows);
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

}  // namespace edgemoe
