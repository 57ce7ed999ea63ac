// Feed-forward networks. Each reads work.normed and leaves what it adds to the residual stream in
// work.branch.
#pragma once

#include <cstdint>

#include "experts/expert_store.h"
#include "model/look_ahead.h"
#include "model/regrouper.h"
#include "model/step.h"

namespace edgemoe {

void dense_ffn(StepContext& step, uint32_t layer);

// Where the experts of a step come from.
struct ExpertSupply {
  ExpertStore& store;
  Regrouper& regrouper;
  const LookAhead& look_ahead;
  // Every expert of a layer is asked for, and of the next one read ahead, whatever the router says.
  bool whole_layers = false;
};

// Routes the rows and asks for their experts; the routing stays in work.routed. From work.normed,
// or from work.x where the layer routes before attention. Changes work.branch.
ExpertStore::Request request_experts(StepContext& step, uint32_t layer, const ExpertSupply& supply);
// The one place where experts meet kernels. Errors: kIo when an expert cannot be read.
void moe_ffn(StepContext& step, uint32_t layer, const ExpertSupply& supply,
             ExpertStore::Request& request);

// Makes the experts of a layer resident, as far as the store's pool holds them. Errors: kIo.
void load_experts(ExpertStore& store, Regrouper& regrouper, uint32_t layer, uint32_t num_experts);

}  // namespace edgemoe
