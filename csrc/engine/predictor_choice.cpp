#include "engine/predictor_choice.h"

namespace edgemoe {

PredictorChoice choose_predictor(const ModelSpec& spec, const EngineOptions& options) {
  PredictorChoice choice{options.predictor, 0, {}};
  if (!spec.is_moe() || !rules_of(options.mode).guesses) return choice;
  if (options.preload == PreloadPolicy::kNone) return choice;
  choice.look_ahead = options.look_ahead;
  if (options.look_ahead == 0 || options.predictor == Predictor::kRouterOnly) return choice;
  LearnedRouting::Shape shape;
  for (uint32_t layer = 0; layer < spec.num_layers; ++layer) {
    if (spec.layers[layer].ffn.kind == FfnKind::kMoe) shape.moe_layers.push_back(layer);
  }
  if (shape.moe_layers.empty()) return choice;
  shape.num_experts = spec.router.num_experts;
  shape.num_used = spec.router.num_used;
  shape.vocab_size = spec.vocab_size;
  shape.transitions = options.predictor == Predictor::kTransitions;
  if (shape.transitions && !LearnedRouting::transitions_fit(shape)) {
    shape.transitions = false;
    choice.predictor = Predictor::kRouter;
  }
  choice.learned = std::move(shape);
  return choice;
}

}  // namespace edgemoe
