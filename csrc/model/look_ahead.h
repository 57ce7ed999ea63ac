// Guesses which experts later layers will use: the token's own history for the first layers; for
// the others their routers, asked about the residual stream as it is now (arXiv 2502.12224 and
// others measured 77 to 89 % of the experts right), or what followed the experts of the layers
// before. Guesses change when experts are read, never a result.
#pragma once

#include <cstdint>

#include "experts/expert_store.h"
#include "experts/learned_routing.h"
#include "experts/predictor.h"
#include "model/step.h"

namespace edgemoe {

struct LookAhead {
  Predictor predictor = Predictor::kRouter;
  uint32_t num_layers = 0;  // guessed early, at most ReadAhead::kMaxDistance; 0: none
  // Learns from steps of few rows; null only where the predictor needs nothing of it.
  LearnedRouting* learned = nullptr;
};

// At the start of a step: tells the store what the first `num_layers` layers with experts probably
// ask for, and starts reading it. Changes work.ahead_experts.
void look_ahead_of_first(StepContext& step, const LookAhead& ahead, ExpertStore& store);

// The experts that the router of `layer` names for the residual stream x [rows][width], into
// work.ahead_experts, those of the first rank first. With a script: what that will say, as often as
// routers are right. Requires: at most kLookAheadRows rows. Changes the ahead_ parts of the
// workspace and work.selection.
void ask_router(StepContext& step, uint32_t layer, const float* x);

// Tells the store what the layers behind `layer`, whose routing is in work.routed, will probably
// ask for. Reads work.x; for a batch of many rows it names every expert of the next layer in file
// order. Changes the ahead_ parts of the workspace and work.selection.
void look_ahead(StepContext& step, uint32_t layer, const LookAhead& ahead, ExpertStore& store);

// Names every expert of the next layer that has some, in file order; behind the last layer comes
// the first, which the next step begins with. Changes work.ahead_experts.
void announce_next_layer(StepContext& step, uint32_t layer, ExpertStore& store);

}  // namespace edgemoe
