// Feed-forward networks. Each reads work.normed and leaves what it adds to the residual stream in
// work.branch.
#pragma once

#include <cstdint>
#include <functional>

#include "experts/expert_store.h"
#include "model/cache_routing.h"
#include "model/look_ahead.h"
#include "model/low_copies.h"
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
  // Changes the router's choice, and with it results; null: nobody does.
  CacheRouting* cache_routing = nullptr;
  // Lets low copies of experts serve a step of one row; null: none do.
  LowCopies* low_copies = nullptr;
};

// Routes the rows and asks for their experts; the routing stays in work.routed. From work.normed,
// or from work.x where the layer routes before attention. Changes work.branch.
ExpertStore::Request request_experts(StepContext& step, uint32_t layer, const ExpertSupply& supply);
// The one place where experts meet kernels. Errors: kIo when an expert cannot be read.
void moe_ffn(StepContext& step, uint32_t layer, const ExpertSupply& supply,
             ExpertStore::Request& request);

// Reads experts [first, first + count) of a layer and shows each to `visit`, in the in-memory
// layout, in the order in which they arrive. Errors: kIo.
void visit_experts(const ExpertSupply& supply, uint32_t layer, uint32_t first, uint32_t count,
                   const std::function<void(const ReadyExpert&)>& visit);

}  // namespace edgemoe
