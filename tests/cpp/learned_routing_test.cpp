#include "experts/learned_routing.h"

#include "engine/predictor_choice.h"
#include "test.h"

namespace edgemoe {
namespace {

using Experts = std::vector<uint32_t>;
using Tokens = std::vector<uint32_t>;

// Layers 1, 3, 4 and 7 of a model have experts.
LearnedRouting::Shape shape(bool transitions = true) {
  return {{1, 3, 4, 7}, 8, 2, 100, transitions};
}

// One token goes through all layers: expert `e` of one is followed by e + 1 in the next.
void run(LearnedRouting& learned, uint32_t token, uint32_t first) {
  learned.begin_step(Tokens{token});
  uint32_t e = first;
  for (const uint32_t layer : shape().moe_layers) {
    learned.learn(0, layer, Experts{e % 8, (e + 4) % 8});
    ++e;
  }
}

TEST("a token is expected to use again what it used, in the first layers with experts") {
  LearnedRouting learned(shape());
  run(learned, 7, 2);
  learned.begin_step(Tokens{9, 7});
  CHECK(learned.of_token(0, 1).empty());
  REQUIRE(learned.of_token(1, 1).size() == 2);
  CHECK_EQUAL(learned.of_token(1, 1)[0], 2u);
  CHECK_EQUAL(learned.of_token(1, 4)[0], 4u);
  CHECK(learned.of_token(1, 7).empty());  // the fourth of them
  CHECK(learned.of_token(1, 2).empty());  // without experts
}

TEST("what followed is expected of the next layer with experts, and of the one behind it") {
  LearnedRouting learned(shape());
  learned.begin_step(Tokens{1});
  learned.learn(0, 1, Experts{0, 4});
  CHECK(learned.after(0, 1, 3).empty());  // nothing is known of it yet
  for (uint32_t i = 0; i < 40; ++i) run(learned, i, i);
  learned.begin_step(Tokens{50, 51});
  learned.learn(0, 1, Experts{1, 5});
  learned.learn(1, 1, Experts{2, 6});
  const auto expect = [&](size_t row, uint32_t from, uint32_t layer, uint32_t expert) {
    const auto likely = learned.after(row, from, layer);
    REQUIRE(likely.size() == 2);
    for (const PredictedExpert& one : likely) CHECK_EQUAL(one.expert % 4, expert % 4);
  };
  expect(0, 1, 3, 2);
  expect(1, 1, 3, 3);
  expect(0, 1, 4, 3);
  CHECK(learned.after(0, 1, 7).empty());  // too far
  CHECK(learned.after(0, 1, 1).empty());
  CHECK(learned.after(0, 1, 5).empty());
}

TEST("without transitions only tokens are remembered, in less memory") {
  LearnedRouting learned(shape(false));
  run(learned, 7, 2);
  CHECK(!learned.of_token(0, 1).empty());
  CHECK(learned.after(0, 1, 3).empty());
  CHECK(LearnedRouting::bytes(shape(false)) < LearnedRouting::bytes(shape(true)));
}

TEST("what was learned is kept; damage costs only what is damaged") {
  LearnedRouting learned(shape());
  for (uint32_t i = 0; i < 40; ++i) run(learned, i, i);
  Sections sections;
  learned.save(sections);
  REQUIRE(sections.size() == 2);
  const auto knows = [](const Sections& saved) {
    LearnedRouting fresh(shape());
    fresh.load(saved);
    fresh.begin_step(Tokens{39});
    const bool tokens = !fresh.of_token(0, 1).empty();
    fresh.learn(0, 1, Experts{0, 4});
    return std::pair(tokens, !fresh.after(0, 1, 3).empty());
  };
  CHECK(knows(sections) == std::pair(true, true));
  CHECK(knows({}) == std::pair(false, false));
  for (auto& [name, bytes] : sections) {
    Sections damaged = sections;
    damaged[name][bytes.size() / 2] ^= std::byte{4};
    const auto [tokens, transitions] = knows(damaged);
    CHECK(tokens != transitions);
  }
}

TEST("transitions that would be too large give way to routers, and options decide the rest") {
  ModelSpec spec;
  spec.num_layers = 3;
  spec.layers.resize(3);
  for (LayerSpec& layer : spec.layers) layer.ffn.kind = FfnKind::kMoe;
  spec.layers[0].ffn.kind = FfnKind::kDense;
  spec.router.num_experts = 16;
  spec.router.num_used = 2;
  spec.vocab_size = 1000;
  EngineOptions options;
  options.predictor = Predictor::kTransitions;
  PredictorChoice choice = choose_predictor(spec, options);
  CHECK(choice.predictor == Predictor::kTransitions);
  REQUIRE(choice.learned.has_value());
  CHECK(choice.learned->transitions);
  CHECK(choice.learned->moe_layers == (std::vector<uint32_t>{1, 2}));
  spec.router.num_experts = 4096;
  choice = choose_predictor(spec, options);
  CHECK(choice.predictor == Predictor::kRouter);
  REQUIRE(choice.learned.has_value());
  CHECK(!choice.learned->transitions);
  options.predictor = Predictor::kRouterOnly;
  CHECK(!choose_predictor(spec, options).learned);
  CHECK_EQUAL(choose_predictor(spec, options).look_ahead, options.look_ahead);
  options.predictor = Predictor::kRouter;
  options.preload = PreloadPolicy::kNone;
  CHECK(!choose_predictor(spec, options).learned);
  CHECK_EQUAL(choose_predictor(spec, options).look_ahead, 0u);
}

}  // namespace
}  // namespace edgemoe
