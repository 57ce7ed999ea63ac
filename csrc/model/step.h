// One forward pass over a batch of rows, each with its token, position and sequence. Decode is one
// row, prefill many rows of one sequence; one answer makes any mix harmless.
#pragma once

#include <cstdint>
#include <span>

#include "experts/event_trace.h"
#include "model/compute.h"
#include "model/expert_observer.h"
#include "model/kv_cache.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "model/position_bias.h"
#include "model/rope_table.h"
#include "model/route_script.h"
#include "model/router_recall.h"
#include "model/workspace.h"

namespace edgemoe {

// Requires: rows of one sequence come in rising position, after everything before them was
// evaluated.
struct StepRow {
  int32_t token = 0;
  uint32_t position = 0;
  KvCache* cache = nullptr;
};

// What every layer function works with.
struct StepContext {
  const ModelSpec& spec;
  const ModelWeights& weights;
  const Compute& compute;
  const RopeTable& rope;
  const PositionBias& position_bias;
  Workspace& work;
  std::span<const StepRow> rows;
  // What the step goes through: all layers, or those of the encoder or the decoder.
  uint32_t first_layer = 0;
  uint32_t end_layer = 0;
  // Of a pass that takes several batches through each layer: no tokens of its own are known of it.
  bool is_part = false;
  const RouteScript* script = nullptr;  // routes in place of the router
  EventTrace* trace = nullptr;          // null: nothing is recorded
  RouterRecall* recall = nullptr;       // likewise
  ExpertObserver* observer = nullptr;   // null: nobody looks
};

}  // namespace edgemoe
