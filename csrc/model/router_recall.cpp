#include "model/router_recall.h"

#include <algorithm>

#include "model/look_ahead.h"

namespace edgemoe {
namespace {

bool is_measured(const StepContext& step) noexcept {
  return step.rows.size() == 1 && step.script == nullptr;
}

}  // namespace

uint64_t RouterRecall::bytes(const ModelSpec& spec) noexcept {
  return uint64_t{2} * spec.width * sizeof(float) +
         uint64_t{spec.num_layers} * kDistances *
             (sizeof(std::vector<uint32_t>) + spec.router.num_used * sizeof(uint32_t));
}

RouterRecall::RouterRecall(const ModelSpec& spec)
    : own_(spec.width), early_(spec.width), guesses_(size_t{spec.num_layers} * kDistances) {
  for (std::vector<uint32_t>& guess : guesses_) guess.reserve(spec.router.num_used);
}

void RouterRecall::keep_own(const StepContext& step) noexcept {
  if (is_measured(step)) std::copy_n(step.work.x, own_.size(), own_.begin());
}

void RouterRecall::keep_early(const StepContext& step) noexcept {
  if (is_measured(step)) std::copy_n(step.work.x, early_.size(), early_.begin());
}

void RouterRecall::measure(StepContext& step, uint32_t layer) {
  if (!is_measured(step) || step.spec.layers[layer].ffn.kind != FfnKind::kMoe) return;
  const auto ask = [&](uint32_t asked, uint32_t distance, const std::vector<float>& x) {
    ask_router(step, asked, x.data());
    guess_of(asked, distance)
        .assign(step.work.ahead_experts.begin(), step.work.ahead_experts.end());
  };
  ask(layer, 0, own_);
  for (uint32_t distance = 0; distance < kDistances; ++distance) {
    std::vector<uint32_t>& guess = guess_of(layer, distance);
    if (guess.empty()) continue;
    for (uint32_t rank = 0; rank < step.spec.router.num_used; ++rank) {
      const uint32_t expert = step.work.routed[rank].expert;
      ++counts_[distance].wanted;
      counts_[distance].named += std::ranges::find(guess, expert) != guess.end() ? 1u : 0u;
    }
    guess.clear();
  }
  for (uint32_t distance = 1; distance < kDistances; ++distance) {
    const uint32_t later = layer + distance;
    if (later >= step.end_layer) break;
    if (step.spec.layers[later].ffn.kind == FfnKind::kMoe) ask(later, distance, early_);
  }
}

}  // namespace edgemoe
