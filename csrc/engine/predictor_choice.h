// Who guesses for a model loaded with these options, and what that has to remember.
#pragma once

#include <optional>

#include "engine/options.h"
#include "experts/learned_routing.h"
#include "model/model_spec.h"

namespace edgemoe {

struct PredictorChoice {
  // Routers where transitions are asked for and their tables would be too large.
  Predictor predictor = Predictor::kRouter;
  uint32_t look_ahead = 0;                       // layers; 0 where nothing is guessed
  std::optional<LearnedRouting::Shape> learned;  // of the tables; none where none are needed
};
PredictorChoice choose_predictor(const ModelSpec& spec, const EngineOptions& options);

}  // namespace edgemoe
