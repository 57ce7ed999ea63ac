#include "model/look_ahead.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "model/ffn.h"
#include "model/router_input.h"

namespace edgemoe {
namespace {

static_assert(Workspace::kLookAheadRows <= LearnedRouting::kMaxRows);
static_assert(LearnedRouting::kTableLayers == ReadAhead::kMaxDistance);

bool is_moe(const StepContext& step, uint32_t layer) {
  return layer < step.end_layer && step.spec.layers[layer].ffn.kind == FfnKind::kMoe;
}

void add_once(std::vector<uint32_t>& experts, uint32_t expert) {
  if (std::find(experts.begin(), experts.end(), expert) == experts.end()) experts.push_back(expert);
}

// Experts that the rows are routed to, those of the first rank first, each once.
void collect(Workspace& work, size_t rows, size_t num_used) {
  work.ahead_experts.clear();
  for (size_t rank = 0; rank < num_used; ++rank) {
    for (size_t row = 0; row < rows; ++row) {
      add_once(work.ahead_experts, work.ahead_routed[row * num_used + rank].expert);
    }
  }
}

// A number from 0 to 1 that is the same in every run.
double chance_of(uint32_t position, uint32_t layer, uint32_t rank) noexcept {
  uint64_t mixed = (uint64_t{position} << 32 | layer << 16 | rank) * 0x9E3779B97F4A7C15u;
  mixed = (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9u;
  return static_cast<double>(mixed >> 11) * 0x1p-53;
}

// With recorded routing the model's own routers know nothing: guesses are what the script will
// say, right as often as the routers of real models are.
void ask_script(StepContext& step, uint32_t layer) {
  Workspace& work = step.work;
  const RouterSpec& router = step.spec.router;
  for (size_t row = 0; row < step.rows.size(); ++row) {
    const uint32_t position = step.rows[row].position;
    const std::span routed(work.ahead_routed.data() + row * router.num_used, router.num_used);
    step.script->route(position, layer, router.num_experts, routed);
    for (uint32_t rank = 0; rank < router.num_used; ++rank) {
      const double chance = chance_of(position, layer, rank);
      if (chance < RouteScript::kGuessRecall) continue;
      routed[rank].expert = static_cast<uint32_t>(chance * 1e6) % router.num_experts;
    }
  }
  collect(work, step.rows.size(), router.num_used);
}

}  // namespace

void ask_router(StepContext& step, uint32_t layer, const float* x) {
  if (step.script != nullptr) return ask_script(step, layer);
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  const RouterSpec& router = step.spec.router;
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  for (size_t row = 0; row < rows; ++row) {
    router_input(step, layer, x + row * width, work.ahead_normed + row * width);
  }
  work.ahead_rows.set(work.ahead_normed, rows, width);
  step.compute.multiply(weights.router, weights.router_bias, work.ahead_rows, work.ahead_logits,
                        router.num_experts);
  for (size_t row = 0; row < rows; ++row) {
    route(router, step.compute.table(),
          {work.ahead_logits + row * router.num_experts, router.num_experts},
          weights.selection_bias, {work.selection, router.num_experts},
          {work.ahead_routed.data() + row * router.num_used, router.num_used});
  }
  collect(work, rows, router.num_used);
}

namespace {

// What the tokens of the rows used in `layer` before, as collect() orders them.
void ask_tokens(StepContext& step, uint32_t layer, const LearnedRouting& learned) {
  std::vector<uint32_t>& experts = step.work.ahead_experts;
  experts.clear();
  for (size_t rank = 0; rank < step.spec.router.num_used; ++rank) {
    for (size_t row = 0; row < step.rows.size(); ++row) {
      const std::span<const uint16_t> known = learned.of_token(row, layer);
      if (rank < known.size()) add_once(experts, known[rank]);
    }
  }
}

void learn(StepContext& step, uint32_t layer, LearnedRouting& learned) {
  Workspace& work = step.work;
  const size_t used = step.spec.router.num_used;
  for (size_t row = 0; row < step.rows.size(); ++row) {
    work.ahead_experts.clear();
    for (size_t i = row * used; i < (row + 1) * used; ++i) {
      work.ahead_experts.push_back(work.routed[i].expert);
    }
    learned.learn(row, layer, work.ahead_experts);
  }
}

// What usually follows the experts of `from` in `layer`.
void ask_transitions(StepContext& step, uint32_t from, uint32_t layer, LearnedRouting& learned) {
  Workspace& work = step.work;
  const size_t used = step.spec.router.num_used;
  work.ahead_experts.clear();
  for (size_t row = 0; row < step.rows.size(); ++row) {
    const std::span<const PredictedExpert> likely = learned.after(row, from, layer);
    if (likely.size() != used) return;
    for (size_t rank = 0; rank < used; ++rank) {
      work.ahead_routed[row * used + rank].expert = likely[rank].expert;
    }
  }
  collect(work, step.rows.size(), used);
}

// So many rows use most experts of a layer that all of them are the best guess.
bool uses_most(const StepContext& step) {
  return step.rows.size() * step.spec.router.num_used >= step.spec.router.num_experts;
}

void name_all(StepContext& step, uint32_t layer, ExpertStore& store) {
  Workspace& work = step.work;
  work.ahead_experts.resize(step.spec.router.num_experts);
  std::iota(work.ahead_experts.begin(), work.ahead_experts.end(), 0u);
  store.guess(layer, ReadAhead::kBatch, work.ahead_experts);
}

void name_first(StepContext& step, ExpertStore& store) {
  uint32_t first = step.first_layer;
  while (first < step.end_layer && !is_moe(step, first)) ++first;
  if (first == step.end_layer || !store.wants_guesses()) return;
  name_all(step, first, store);
  store.read_ahead();
}

}  // namespace

void announce_next_layer(StepContext& step, uint32_t layer, ExpertStore& store) {
  uint32_t next = layer;
  do {
    next = next + 1 == step.end_layer ? step.first_layer : next + 1;
  } while (!is_moe(step, next));
  if (next != layer) name_all(step, next, store);
}

void look_ahead_of_first(StepContext& step, const LookAhead& ahead, ExpertStore& store) {
  if (step.rows.size() > Workspace::kLookAheadRows) {
    if (ahead.num_layers > 0 && uses_most(step)) name_first(step, store);
    return;
  }
  if (ahead.learned == nullptr) return;
  std::array<uint32_t, Workspace::kLookAheadRows> tokens{};
  for (size_t row = 0; row < step.rows.size(); ++row) {
    tokens[row] = static_cast<uint32_t>(step.rows[row].token);
  }
  ahead.learned->begin_step({tokens.data(), step.rows.size()});
  // With a script the tokens are not those that were routed so.
  if (step.script != nullptr || !store.wants_guesses()) return;
  uint32_t distance = 0;
  for (uint32_t layer = step.first_layer; layer < step.end_layer && distance < ahead.num_layers;
       ++layer) {
    if (!is_moe(step, layer)) continue;
    ask_tokens(step, layer, *ahead.learned);
    if (!step.work.ahead_experts.empty()) {
      store.guess(layer, ReadAhead::kToken + distance, step.work.ahead_experts);
    }
    ++distance;
  }
  store.read_ahead();
}

void look_ahead(StepContext& step, uint32_t layer, const LookAhead& ahead, ExpertStore& store) {
  Workspace& work = step.work;
  if (ahead.num_layers == 0) return;
  const bool wanted = store.wants_guesses();
  if (step.rows.size() > Workspace::kLookAheadRows) {
    if (wanted && uses_most(step) && is_moe(step, layer + 1)) name_all(step, layer + 1, store);
    return;
  }
  if (step.is_part) return;
  if (ahead.learned != nullptr) learn(step, layer, *ahead.learned);
  if (!wanted) return;
  const bool ask_routers = ahead.predictor != Predictor::kTransitions;
  for (uint32_t distance = 1; distance <= std::min(ahead.num_layers, ReadAhead::kMaxDistance);
       ++distance) {
    const uint32_t later = layer + distance;
    if (!is_moe(step, later)) continue;
    if (ask_routers) {
      ask_router(step, later, work.x);
    } else {
      ask_transitions(step, layer, later, *ahead.learned);
    }
    if (work.ahead_experts.empty()) continue;  // nothing is known yet
    store.guess(later, ask_routers ? distance : ReadAhead::kTransitions + distance,
                work.ahead_experts);
  }
}

}  // namespace edgemoe
