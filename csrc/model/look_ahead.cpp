#include "model/look_ahead.h"

#include <algorithm>
#include <numeric>

#include "model/ffn.h"

namespace edgemoe {
namespace {

bool is_moe(const StepContext& step, uint32_t layer) {
  return layer < step.spec.num_layers && step.spec.layers[layer].ffn.kind == FfnKind::kMoe;
}

// Experts that the rows are routed to, those of the first rank first, each once.
void collect(Workspace& work, size_t rows, size_t num_used) {
  work.ahead_experts.clear();
  for (size_t rank = 0; rank < num_used; ++rank) {
    for (size_t row = 0; row < rows; ++row) {
      const uint32_t expert = work.ahead_routed[row * num_used + rank].expert;
      const auto end = work.ahead_experts.end();
      if (std::find(work.ahead_experts.begin(), end, expert) == end) {
        work.ahead_experts.push_back(expert);
      }
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

void ask_router(StepContext& step, uint32_t layer) {
  if (step.script != nullptr) return ask_script(step, layer);
  Workspace& work = step.work;
  const LayerWeights& weights = step.weights.layer(layer);
  const RouterSpec& router = step.spec.router;
  const size_t width = step.spec.width;
  const size_t rows = step.rows.size();
  for (size_t row = 0; row < rows; ++row) {
    const auto norm = step.spec.norm == NormKind::kRms ? step.compute.table().rms_norm
                                                       : step.compute.table().layer_norm;
    norm(work.x + row * width, weights.ffn_norm, weights.ffn_norm_bias, width,
         step.spec.norm_epsilon, work.ahead_normed + row * width);
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

void name_all(StepContext& step, uint32_t layer, ExpertStore& store) {
  Workspace& work = step.work;
  work.ahead_experts.resize(step.spec.router.num_experts);
  std::iota(work.ahead_experts.begin(), work.ahead_experts.end(), 0u);
  store.guess(layer, ReadAhead::kBatch, work.ahead_experts);
}

}  // namespace

void announce_next_layer(StepContext& step, uint32_t layer, ExpertStore& store) {
  uint32_t next = layer;
  do {
    next = (next + 1) % step.spec.num_layers;
  } while (!is_moe(step, next));
  if (next != layer) name_all(step, next, store);
}

void look_ahead(StepContext& step, uint32_t layer, uint32_t num_layers, ExpertStore& store) {
  Workspace& work = step.work;
  const RouterSpec& router = step.spec.router;
  if (num_layers == 0 || !store.wants_guesses()) return;
  if (step.rows.size() > Workspace::kLookAheadRows) {
    // So many rows use most experts that the whole layer is the best guess.
    const bool most = step.rows.size() * router.num_used >= router.num_experts;
    if (most && is_moe(step, layer + 1)) name_all(step, layer + 1, store);
    return;
  }
  for (uint32_t distance = 1; distance <= std::min(num_layers, ReadAhead::kMaxDistance);
       ++distance) {
    if (!is_moe(step, layer + distance)) continue;
    ask_router(step, layer + distance);
    store.guess(layer + distance, distance, work.ahead_experts);
  }
}

}  // namespace edgemoe
