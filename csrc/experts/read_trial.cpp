#include "experts/read_trial.h"

#include <algorithm>
#include <cmath>

namespace edgemoe {

bool ReadTrial::is_on() const noexcept {
  if (hold_ > 0) return choice_;
  const uint32_t turn = step_ % 4;
  return turn == 0 || turn == 3;
}

void ReadTrial::end_step(double seconds, bool counts) noexcept {
  if (!counts) return;
  if (hold_ > 0) {
    if (--hold_ == 0) {
      for (Times& times : times_) times.fade();
    }
    return;
  }
  Times& times = times_[is_on() ? 1 : 0];
  times.steps += 1;
  times.seconds += seconds;
  times.squares += seconds * seconds;
  ++step_;
  if (step_ % kTrialSteps == 0 && (step_ == kMostTrialSteps || is_clear())) decide();
}

// What was found earlier counts half as much as what the shortest trial finds.
void ReadTrial::Times::fade() noexcept {
  constexpr double kKeptSteps = kTrialSteps / 4.0;
  const double kept = std::min(1.0, kKeptSteps / std::max(steps, 1.0));
  steps *= kept;
  seconds *= kept;
  squares *= kept;
}

double ReadTrial::Times::variance_of_mean() const noexcept {
  return std::max(0.0, squares / steps - mean() * mean()) / steps;
}

bool ReadTrial::is_clear() const noexcept {
  constexpr double kDeviations = 2;
  const auto& [without, with] = times_;
  const double noise = std::sqrt(without.variance_of_mean() + with.variance_of_mean());
  return std::abs(with.mean() - kWorthwhile * without.mean()) >= kDeviations * noise;
}

void ReadTrial::decide() noexcept {
  step_ = 0;
  hold_ = kHoldSteps;
  choice_ = ratio() <= kWorthwhile;
}

double ReadTrial::ratio() const noexcept {
  const auto& [without, with] = times_;
  if (without.seconds == 0 || with.steps == 0) return restored_;
  return with.mean() / without.mean();
}

void ReadTrial::restore(double ratio) noexcept {
  if (!(ratio > 0) || !std::isfinite(ratio)) return;
  restored_ = ratio;
  choice_ = ratio <= kWorthwhile;
  hold_ = kRestoredHoldSteps;
}

}  // namespace edgemoe
