#include "experts/read_trial.h"

#include <random>

#include "test.h"

namespace edgemoe {
namespace {

// Steps that take `with` or `without` seconds, and noise; returns the share that read ahead.
double run(ReadTrial& trial, double with, double without, uint32_t steps, double noise = 0) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal(1.0, noise);
  uint32_t on = 0;
  for (uint32_t i = 0; i < steps; ++i) {
    on += trial.is_on();
    const double factor = noise > 0 ? normal(random) : 1.0;
    trial.end_step((trial.is_on() ? with : without) * factor, true);
  }
  return static_cast<double>(on) / steps;
}

TEST("the faster way stays") {
  ReadTrial wins;
  CHECK(run(wins, 0.7, 1.0, 4000, 0.1) > 0.95);
  CHECK(wins.ratio() > 0.65 && wins.ratio() < 0.75);
  ReadTrial loses;
  CHECK(run(loses, 1.05, 1.0, 4000) < 0.05);
}

TEST("reading ahead that gains nothing is left off") {
  ReadTrial trial;
  CHECK(run(trial, 1.0, 1.0, 4000) < 0.05);
}

TEST("a small gain is found in noise of one step that is larger") {
  ReadTrial trial;
  run(trial, 0.9, 1.0, ReadTrial::kMostTrialSteps, 0.15);
  CHECK(trial.is_on());
  CHECK(run(trial, 0.9, 1.0, 4000, 0.15) > 0.8);
}

TEST("a device that slows down during a trial does not decide it") {
  ReadTrial trial;
  double seconds = 1.0;
  for (uint32_t i = 0; i < ReadTrial::kTrialSteps; ++i) {
    seconds *= 1.03;
    trial.end_step((trial.is_on() ? 0.9 : 1.0) * seconds, true);
  }
  CHECK(trial.ratio() < 0.95);
}

TEST("a choice is revised when the device changes") {
  ReadTrial trial;
  run(trial, 0.7, 1.0, 1000);
  CHECK(trial.is_on());
  CHECK(run(trial, 1.3, 1.0, 4000) < 0.5);
  CHECK(!trial.is_on());
}

TEST("steps that say nothing change nothing") {
  ReadTrial trial;
  for (int i = 0; i < 1000; ++i) {
    CHECK(trial.is_on());
    trial.end_step(i, false);
  }
  CHECK_EQUAL(trial.ratio(), 0.0);
}

TEST("what an earlier run found holds until the next trial") {
  ReadTrial trial;
  trial.restore(1.2);
  CHECK(!trial.is_on());
  CHECK(run(trial, 0.5, 1.0, ReadTrial::kRestoredHoldSteps) == 0);
  run(trial, 0.5, 1.0, ReadTrial::kTrialSteps);
  CHECK(trial.is_on());
  ReadTrial damaged;
  damaged.restore(-1);
  damaged.restore(0);
  CHECK(damaged.is_on());
}

}  // namespace
}  // namespace edgemoe
