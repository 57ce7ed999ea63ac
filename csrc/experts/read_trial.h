// Whether reading ahead pays on this device with this model: steps with it and without it take
// turns, and the faster way stays until the next trial. Bookkeeping only: no clock.
//
// Reading ahead fills time in which the device would idle; where there is none, what is read in
// vain only delays what is asked for. Which of the two holds depends on device, cache, routing and
// CPU, and is cheaper to try than to predict.
#pragma once

#include <array>
#include <cstdint>

namespace edgemoe {

class ReadTrial {
 public:
  // Steps of a trial: with, without, without, with, and so on. Neighbouring steps see the same
  // device, whose speed may change within seconds where it is shared.
  static constexpr uint32_t kTrialSteps = 24;
  // A trial goes on, up to so many steps, until noise does not explain on which side of
  // kWorthwhile they are.
  static constexpr uint32_t kMostTrialSteps = 4 * kTrialSteps;
  static constexpr uint32_t kHoldSteps = 16 * kTrialSteps;  // between trials
  // Until the first trial of a run that takes over what an earlier one found: it may have had
  // another budget or device.
  static constexpr uint32_t kRestoredHoldSteps = 2 * kTrialSteps;
  // Reading ahead stays when its steps take at most this share of the others'. It reads more, and
  // what is within noise is not worth that.
  static constexpr double kWorthwhile = 0.99;

  // Whether the next step reads ahead.
  bool is_on() const noexcept;
  // A step took so long. `counts` is false where it says nothing: a prompt, a pool that still
  // fills up; the trial waits then.
  void end_step(double seconds, bool counts) noexcept;

  // The time of a step with reading ahead over that of one without, 0 before the first trial.
  double ratio() const noexcept;
  // What an earlier run found; the next trial is near. Ignored unless it is above 0.
  void restore(double ratio) noexcept;

 private:
  struct Times {
    double steps = 0;
    double seconds = 0;
    double squares = 0;  // of seconds

    double mean() const noexcept { return seconds / steps; }
    double variance_of_mean() const noexcept;
    void fade() noexcept;
  };
  bool is_clear() const noexcept;
  void decide() noexcept;

  std::array<Times, 2> times_;  // without, with
  uint32_t step_ = 0;           // of the trial
  uint32_t hold_ = 0;           // steps until the next one
  bool choice_ = true;
  double restored_ = 0;
};

}  // namespace edgemoe
