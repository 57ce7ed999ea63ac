// How many of the experts that decoding used would each predictor have named?
#pragma once

#include <cstdint>

#include "base/should_stop.h"
#include "experts/routing_trace.h"

namespace edgemoe {

// Decoded tokens only; the predictors learn from all that came before, prompt included. Each names
// as many experts as the layer then used, unless said otherwise.
struct PredictorRecall {
  uint64_t wanted = 0;             // experts used in layers that follow another
  uint64_t popular = 0;            // of those, among the most used of the layer
  uint64_t transitions = 0;        // of those, named by Transitions
  uint64_t transitions_twice = 0;  // likewise, when it names twice as many
  uint64_t token_wanted = 0;       // experts that tokens with a known id used, in all layers
  uint64_t token_table = 0;        // of those, named by TokenTable
};
// Asks should_stop for every token and layer. Errors: kCancelled.
PredictorRecall predictor_recall(const RoutingTrace& trace, const ShouldStop& should_stop = {});

}  // namespace edgemoe
