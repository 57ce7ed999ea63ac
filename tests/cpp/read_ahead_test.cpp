#include "experts/read_ahead.h"

#include "test.h"

namespace edgemoe {
namespace {

using Guess = ReadAhead::Guess;

TEST("kinds of guesses are trusted apart") {
  ReadAhead ahead(2, 8, 2, PreloadPolicy::kAuto);
  const std::vector<Guess> guess = {{3, true}};
  const std::vector<uint32_t> other = {4};
  for (uint32_t failing = 0; failing < ReadAhead::kNumKinds; failing += 3) {
    for (int i = 0; i < 8; ++i) {
      ahead.guess(1, failing, guess);
      ahead.settle(1, other);
      ahead.forget();
    }
  }
  for (uint32_t kind = 0; kind < ReadAhead::kNumKinds; ++kind) {
    ahead.guess(1, kind, guess);
    CHECK_EQUAL(ahead.take().has_value(), kind % 3 != 0);
    ahead.forget();
  }
}

TEST("a later guess takes the place of an earlier one of another kind, and both are judged") {
  ReadAhead ahead(2, 8, 2, PreloadPolicy::kAuto);
  const std::vector<Guess> early = {{3, true}};
  const std::vector<Guess> late = {{5, true}};
  const std::vector<uint32_t> used = {5};
  for (int i = 0; i < 8; ++i) {
    ahead.guess(1, ReadAhead::kToken, early);
    ahead.guess(1, 1, late);
    REQUIRE(ahead.guessed(1).size() == 1);
    CHECK_EQUAL(ahead.guessed(1)[0].expert, 5u);
    ahead.settle(1, used);
    ahead.forget();
  }
  CHECK_EQUAL(ahead.stats().true_guesses, 8u);
  ahead.guess(1, ReadAhead::kToken, early);
  CHECK(!ahead.take());
  ahead.guess(1, 1, late);
  REQUIRE(ahead.take().has_value());
}

TEST("trust of a model with another shape is ignored") {
  ReadAhead ahead(2, 8, 2, PreloadPolicy::kAuto);
  const std::vector<float> saved(ahead.trusted().size(), 0.25f);
  ahead.restore_trust(std::span(saved).first(saved.size() - 1));
  CHECK(ahead.trusted()[0] >= ReadAhead::kLeastTrust);
  ahead.restore_trust(saved);
  CHECK_EQUAL(ahead.trusted()[0], 0.25f);
}

}  // namespace
}  // namespace edgemoe
