#include "model/forward.h"

#include "base/error.h"
#include "model/attention.h"
#include "model/ffn.h"

namespace edgemoe {
namespace {

void norm_row(const Model& model, const float* x, const float* weight, const float* bias,
              float* out) {
  const kernels::KernelTable& table = model.compute.table();
  const auto norm = model.spec.norm == NormKind::kRms ? table.rms_norm : table.layer_norm;
  norm(x, weight, bias, model.spec.width, model.spec.norm_epsilon, out);
}

void norm_rows(const Model& model, const float* weight, const float* bias, size_t num_rows) {
  const size_t width = model.spec.width;
  model.compute.pool().parallel_for(num_rows, [&](size_t row, size_t) {
    norm_row(model, model.work.x + row * width, weight, bias, model.work.normed + row * width);
  });
}

// x += residual_scale * branch
void add_branch(const Model& model, size_t num_rows) {
  const size_t width = model.spec.width;
  model.compute.pool().parallel_for(num_rows, [&](size_t row, size_t) {
    float* x = model.work.x + row * width;
    const float* branch = model.work.branch + row * width;
    if (model.spec.residual_scale == 1.0f) {
      model.compute.table().add(branch, width, x);
    } else {
      model.compute.table().add_scaled(model.spec.residual_scale, branch, width, x);
    }
  });
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
  StepContext step{model.spec, model.weights, model.compute, model.rope,    model.work,
                   rows,       model.script,  model.trace,   model.observer};
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
    const LayerWeights& weights = model.weights.layer(layer);
    norm_rows(model, weights.attention_norm, weights.attention_norm_bias, rows.size());
    attend(step, layer);
    add_branch(model, rows.size());
    norm_rows(model, weights.ffn_norm, weights.ffn_norm_bias, rows.size());
    if (model.spec.layers[layer].ffn.kind == FfnKind::kMoe) {
      moe_ffn(step, layer,
              {*model.store, model.regrouper, model.look_ahead, model.whole_layers,
               phase == Phase::kDecode ? model.cache_routing : nullptr});
    } else {
      dense_ffn(step, layer);
    }
    add_branch(model, rows.size());
    if (model.trace != nullptr) model.trace->end_layer(model.store);
  }
  if (model.store != nullptr) model.store->end_step();
}

void compute_logits(Model& model, size_t first, size_t count, float* out) {
  Workspace& work = model.work;
  const size_t width = model.spec.width;
  const size_t vocab_size = model.spec.vocab_size;
  model.compute.pool().parallel_for(count, [&](size_t row, size_t) {
    norm_row(model, work.x + (first + row) * width, model.weights.output_norm(),
             model.weights.output_norm_bias(), work.normed + row * width);
  });
  work.width_rows.set(work.normed, count, width);
  model.compute.multiply(model.weights.output(), nullptr, work.width_rows, out, vocab_size);
  const kernels::KernelTable& table = model.compute.table();
  const size_t total = count * vocab_size;
  if (model.spec.logit_scale != 1.0f) table.scale(model.spec.logit_scale, total, out);
  if (model.spec.logit_softcap != 0.0f) table.softcap(model.spec.logit_softcap, total, out);
}

}  // namespace edgemoe
