#include "experts/transitions.h"

#include <random>

#include "experts/token_table.h"
#include "test.h"

namespace edgemoe {
namespace {

using Experts = std::vector<uint32_t>;

TEST("what followed is predicted first, and scores fall and sum to one") {
  Transitions transitions(3, 8);
  CHECK(transitions.predict(1, Experts{0}, {}, 8).empty());  // nothing was seen
  for (int i = 0; i < 10; ++i) {
    transitions.learn(1, Experts{2, 5}, Experts{0, 1}, {});
    transitions.learn(1, Experts{3, 6}, Experts{4, 7}, {});
  }
  const auto after_first = transitions.predict(1, Experts{0, 1}, {}, 8);
  REQUIRE(after_first.size() == 8);
  CHECK_EQUAL(after_first[0].expert, 2u);
  CHECK_EQUAL(after_first[1].expert, 5u);
  float sum = 0;
  for (size_t i = 0; i < after_first.size(); ++i) {
    sum += after_first[i].score;
    CHECK(i == 0 || after_first[i].score <= after_first[i - 1].score);
  }
  CHECK(sum > 0.999f && sum < 1.001f);
  const auto after_second = transitions.predict(1, Experts{7, 4}, {}, 2);
  REQUIRE(after_second.size() == 2);
  CHECK_EQUAL(after_second[0].expert, 3u);
  CHECK_EQUAL(after_second[1].expert, 6u);
}

TEST("the layer before the last decides where the last one does not") {
  Transitions transitions(3, 8);
  for (int i = 0; i < 10; ++i) {
    transitions.learn(2, Experts{1}, Experts{0}, Experts{3});
    transitions.learn(2, Experts{2}, Experts{0}, Experts{4});
  }
  CHECK_EQUAL(transitions.predict(2, Experts{0}, Experts{3}, 1)[0].expert, 1u);
  CHECK_EQUAL(transitions.predict(2, Experts{0}, Experts{4}, 1)[0].expert, 2u);
}

TEST("counts stay bounded, and what is learned later replaces what was before") {
  Transitions transitions(2, 4);
  for (int i = 0; i < 5000; ++i) transitions.learn(1, Experts{2}, Experts{0}, {});
  CHECK_EQUAL(transitions.predict(1, Experts{0}, {}, 1)[0].expert, 2u);
  for (int i = 0; i < 600; ++i) transitions.learn(1, Experts{3}, Experts{0}, {});
  CHECK_EQUAL(transitions.predict(1, Experts{0}, {}, 1)[0].expert, 3u);
}

// Flips, cuts and grows sealed bytes; none of it may be accepted.
template <class Predictor>
void check_damage_is_refused(Predictor& target, const std::vector<std::byte>& good) {
  const std::vector<std::byte> before = target.save();
  std::mt19937 random(9);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::byte> bad = good;
    if (round % 3 == 0) {
      bad.resize(random() % good.size());
    } else if (round % 3 == 1) {
      bad[random() % bad.size()] ^= std::byte{static_cast<unsigned char>(1u << (random() % 8))};
    } else {
      bad.resize(good.size() + 1 + random() % 64);
    }
    CHECK(!target.load(bad));
  }
  CHECK(!target.load({}));
  CHECK(target.save() == before);
}

TEST("saved transitions predict the same; damaged ones are refused without harm") {
  std::mt19937 random(1);
  Transitions learned(4, 16);
  for (int i = 0; i < 2000; ++i) {
    const Experts experts = {static_cast<uint32_t>(random() % 8), 8};
    const Experts previous = {static_cast<uint32_t>(random() % 16)};
    learned.learn(static_cast<uint32_t>(random() % 4), experts, previous, previous);
  }
  const std::vector<std::byte> saved = learned.save();
  CHECK(saved.size() < Transitions::bytes(4, 16) + 64);
  Transitions fresh(4, 16);
  check_damage_is_refused(fresh, saved);
  REQUIRE(fresh.load(saved));
  CHECK(fresh.save() == saved);
  const auto expected = learned.predict(2, Experts{3}, Experts{5}, 16);
  const auto found = fresh.predict(2, Experts{3}, Experts{5}, 16);
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) CHECK_EQUAL(found[i].expert, expected[i].expert);
  Transitions other_model(4, 17);
  CHECK(!other_model.load(saved));
}

TEST("a token table names what a token used last, and forgets whom another replaced") {
  TokenTable table(2, 3, 4);
  CHECK(table.predict(7, 0).empty());
  table.learn(7, 0, Experts{5, 1, 4});
  table.learn(7, 1, Experts{2});
  REQUIRE(table.predict(7, 0).size() == 3);
  CHECK_EQUAL(table.predict(7, 0)[0], 5u);
  REQUIRE(table.predict(7, 1).size() == 1);
  CHECK(table.predict(7, 2).empty());  // a layer that it does not cover
  table.learn(7, 0, Experts{6, 6, 6, 6, 6});
  CHECK_EQUAL(table.predict(7, 0).size(), 3u);
  for (uint32_t token = 100; token < 140; ++token) table.learn(token, 0, Experts{1});
  CHECK(table.predict(7, 0).empty());
  CHECK(table.predict(7, 1).empty());
  CHECK(table.predict(139, 1).empty());
  CHECK_EQUAL(table.predict(139, 0).size(), 1u);
}

TEST("a saved token table predicts the same; a damaged one is refused without harm") {
  TokenTable learned(2, 2, 64);
  for (uint32_t token = 0; token < 200; ++token) {
    learned.learn(token, token % 2, Experts{token % 9, token % 5});
  }
  const std::vector<std::byte> saved = learned.save();
  CHECK(saved.size() <= TokenTable::bytes(2, 2, 64) + 64);
  TokenTable fresh(2, 2, 64);
  check_damage_is_refused(fresh, saved);
  REQUIRE(fresh.load(saved));
  CHECK(fresh.save() == saved);
  Transitions transitions(2, 2);
  CHECK(!transitions.load(saved));
}

}  // namespace
}  // namespace edgemoe
