// Guesses which experts later layers will use: their routers, asked about the residual stream as it
// is now (arXiv 2502.12224 and others measured 77 to 89 % of the experts right). Guesses change
// when experts are read, never a result.
#pragma once

#include <cstdint>

#include "experts/expert_store.h"
#include "model/step.h"

namespace edgemoe {

// Tells the store what the next `num_layers` layers (at most ReadAhead::kMaxDistance) behind
// `layer` will probably ask for. Reads work.x; for a batch of many rows it names every expert of
// the next layer in file order. Changes the ahead_ parts of the workspace and work.selection.
void look_ahead(StepContext& step, uint32_t layer, uint32_t num_layers, ExpertStore& store);

// Names every expert of the next layer that has some, in file order; behind the last layer comes
// the first, which the next step begins with. Changes work.ahead_experts.
void announce_next_layer(StepContext& step, uint32_t layer, ExpertStore& store);

}  // namespace edgemoe
