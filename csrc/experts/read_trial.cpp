#include "experts/read_trial.h"

#include <cmath>

namespace edgemoe {

bool ReadTrial::is_on() const noexcept {
  if (hold_ > 0) return choice_;
  const uint32_t turn = step_ / kTurnSteps;
  return turn == 0 || turn == 3;
}

void ReadTrial::end_step(double seconds, bool counts) noexcept {
  if (!counts) return;
  if (hold_ > 0) {
    // What was found earlier counts half as much as what is found now.
    if (--hold_ == 0) {
      for (Times& times : times_) times = {times.seconds / 2, times.steps / 2};
    }
    return;
  }
  if (step_ % kTurnSteps != 0) {
    Times& times = times_[is_on() ? 1 : 0];
    times.seconds += seconds;
    times.steps += 1;
  }
  if (++step_ == kTrialSteps) decide();
}

void ReadTrial::decide() noexcept {
  step_ = 0;
  ++trials_;
  const double found = ratio();
  choice_ = found <= kWorthwhile;
  if (trials_ == 1 && std::abs(found - 1) < kClear) return;  // another one at once
  hold_ = kHoldSteps;
}

double ReadTrial::ratio() const noexcept {
  const auto& [without, with] = times_;
  if (without.seconds == 0 || with.steps == 0) return restored_;
  return (with.seconds / with.steps) / (without.seconds / without.steps);
}

void ReadTrial::restore(double ratio) noexcept {
  if (!(ratio > 0) || !std::isfinite(ratio)) return;
  restored_ = ratio;
  choice_ = ratio <= kWorthwhile;
  hold_ = kRestoredHoldSteps;
}

}  // namespace edgemoe
