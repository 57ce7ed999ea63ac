// The forward pass: the same for every architecture, batch and budget.
#pragma once

#include <cstdint>
#include <span>

#include "base/should_stop.h"
#include "experts/expert_store.h"
#include "model/cache_routing.h"
#include "model/embedding.h"
#include "model/look_ahead.h"
#include "model/low_copies.h"
#include "model/regrouper.h"
#include "model/step.h"

namespace edgemoe {

// Everything that a forward pass uses; the engine owns the parts.
struct Model {
  const ModelSpec& spec;
  const ModelWeights& weights;
  const Compute& compute;
  const EmbeddingTable& embedding;
  RopeTable& rope;
  const PositionBias& position_bias;
  Workspace& work;
  Regrouper& regrouper;
  ExpertStore* store = nullptr;  // null for a dense model
  LookAhead look_ahead;
  bool whole_layers = false;              // see ExpertSupply
  const RouteScript* script = nullptr;    // of benchmarks; else null
  EventTrace* trace = nullptr;            // null: nothing is recorded
  RouterRecall* recall = nullptr;         // likewise
  CacheRouting* cache_routing = nullptr;  // of decode; null: routers have their way
  LowCopies* low_copies = nullptr;        // of decode; null: experts are used as they are
  ExpertObserver* observer = nullptr;     // null: nobody looks
};

// out[row] = the scaled embedding of rows[row].token. Errors: kIo.
void embed(const Model& model, std::span<const StepRow> rows, float* out);
// Sets the positions of the step's rows. `encoder`: it goes through the encoder's layers.
StepContext step_of(Model& model, std::span<const StepRow> rows, bool encoder);

// Evaluates the rows, of that phase; the residual stream after the last layer stays in work.x. Asks
// should_stop before every layer. With an encoder it is the decoder that evaluates them; their
// caches hold what that has read (encoder.h). Requires: 1 <= rows.size() <= work.batch. Errors:
// kIo, kCancelled; the caches hold undefined rows at the step's positions then.
void forward(Model& model, std::span<const StepRow> rows, Phase phase,
             const ShouldStop& should_stop);

// Logits of rows [first, first + count) of the last forward: out[count][vocab_size]. Changes
// work.normed and work.width_rows.
void compute_logits(Model& model, size_t first, size_t count, float* out);

}  // namespace edgemoe
