#include "model/forward.h"

#include "base/error.h"
#include "model/layer.h"

namespace edgemoe {

void embed(const Model& model, std::span<const StepRow> rows, float* out) {
  model.embedding.read(rows, model.compute.pool(), out);
  if (model.spec.embedding_scale == 1.0f) return;
  model.compute.table().scale(model.spec.embedding_scale, rows.size() * model.spec.width, out);
}

StepContext step_of(Model& model, std::span<const StepRow> rows, bool encoder) {
  for (size_t row = 0; row < rows.size(); ++row) model.work.positions[row] = rows[row].position;
  model.rope.set_positions({model.work.positions.data(), rows.size()}, model.compute.pool());
  const uint32_t num_encoder = model.spec.num_encoder_layers;
  return {model.spec,
          model.weights,
          model.compute,
          model.rope,
          model.position_bias,
          model.work,
          rows,
          encoder ? 0 : num_encoder,
          encoder ? num_encoder : model.spec.num_layers,
          false,
          model.script,
          model.trace,
          model.recall,
          model.observer};
}

void forward(Model& model, std::span<const StepRow> rows, Phase phase,
             const ShouldStop& should_stop) {
  EM_CHECK(!rows.empty() && rows.size() <= model.work.batch);
  StepContext step = step_of(model, rows, false);
  if (model.observer != nullptr) model.observer->begin_step(rows.size());
  if (model.store != nullptr) {
    model.store->begin_step(phase);
    look_ahead_of_first(step, model.look_ahead, *model.store);
  }
  embed(model, rows, model.work.x);

  for (uint32_t layer = step.first_layer; layer < step.end_layer; ++layer) {
    throw_if_stopped(should_stop);
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
  norm_rows(model, work.x + first * width, model.weights.output_norm(),
            model.weights.output_norm_bias(), count);
  work.width_rows.set(work.normed, count, width);
  model.compute.multiply(model.weights.output(), model.weights.output_bias(), work.width_rows, out,
                         vocab_size);
  const kernels::KernelTable& table = model.compute.table();
  const size_t total = count * vocab_size;
  if (model.spec.logit_scale != 1.0f) table.scale(model.spec.logit_scale, total, out);
  if (model.spec.logit_softcap != 0.0f) table.softcap(model.spec.logit_softcap, total, out);
}

}  // namespace edgemoe
