#include "model/cache_routing.h"

#include <limits>
#include <random>
#include <vector>

#include "kernels/dispatch.h"
#include "test.h"

namespace edgemoe {
namespace {

constexpr uint32_t kLayers = 2;
constexpr uint32_t kExperts = 16;
constexpr uint64_t kExpertBytes = 4096;

ExpertLayout make_layout() {
  ExpertTensor tensor;
  tensor.types.assign(kExperts, QuantType::kF32);
  tensor.rows = 32;
  tensor.columns = 32;
  tensor.shards.assign(kExperts, 0);
  for (uint32_t expert = 0; expert < kExperts; ++expert) {
    tensor.offsets.push_back(expert * kExpertBytes);
  }
  const std::vector<std::vector<ExpertTensor>> tensors(kLayers, {tensor});
  return {tensors, kExperts, 1};
}

RouterSpec make_router(RouterScore score) {
  RouterSpec router;
  router.score = score;
  router.num_experts = kExperts;
  router.num_used = 4;
  router.renormalise = true;
  return router;
}

// A router, a cache with some experts, and the routing of one token after another.
struct Fixture {
  explicit Fixture(double target, RouterScore score = RouterScore::kSoftmax)
      : router(make_router(score)),
        cache(kLayers, kExperts, kLayers * kExperts * kExpertBytes, EvictionPolicy::kLru),
        routing(target, router, cache, layout) {}

  void make_resident(uint32_t layer, uint32_t expert) {
    if (cache.state({layer, expert}) != ExpertCache::State::kAbsent) return;
    cache.reserve({layer, expert}, kExpertBytes);
    cache.finish_load({layer, expert});
    cache.unpin({layer, expert});
  }

  // The router's own choice in `exact`, what it became in `chosen`.
  void route_token(uint32_t layer, std::vector<float> logits) {
    std::vector<float> selection(kExperts);
    exact.resize(router.num_used);
    const kernels::KernelTable& table = kernels::table_by_name("scalar");
    choose_experts(router, table, logits, nullptr, selection, exact);
    chosen = exact;
    routing.prefer_resident(layer, logits, selection, chosen);
    scores = logits;
  }

  std::vector<float> random_logits() {
    std::normal_distribution<float> normal;
    std::vector<float> logits(kExperts);
    for (float& logit : logits) logit = normal(random);
    return logits;
  }

  ExpertLayout layout = make_layout();
  RouterSpec router;
  ExpertCache cache;
  CacheRouting routing;
  std::mt19937 random{11};
  std::vector<RoutedExpert> exact;
  std::vector<RoutedExpert> chosen;
  std::vector<float> scores;
};

bool same_experts(const std::vector<RoutedExpert>& a, const std::vector<RoutedExpert>& b) {
  for (size_t rank = 0; rank < a.size(); ++rank) {
    if (a[rank].expert != b[rank].expert) return false;
  }
  return true;
}

TEST("lossy routing leaves what is resident, and what no resident expert can replace") {
  for (const bool everything : {true, false}) {
    Fixture fixture(0.5);
    for (uint32_t expert = 0; everything && expert < kExperts; ++expert) {
      fixture.make_resident(0, expert);
    }
    for (int token = 0; token < 100; ++token) {
      fixture.route_token(0, fixture.random_logits());
      CHECK(same_experts(fixture.chosen, fixture.exact));
    }
    CHECK_EQUAL(fixture.routing.stats().substitutions, 0u);
    CHECK_EQUAL(fixture.routing.stats().choices, 400u);
    CHECK_EQUAL(fixture.routing.stats().agreement(), 1.0);
  }
}

TEST("lossy routing substitutes distinct resident experts, and never the first choice") {
  for (const RouterScore score : {RouterScore::kSoftmax, RouterScore::kSigmoid,
                                  RouterScore::kSoftmaxTopK, RouterScore::kSqrtSoftplus}) {
    Fixture fixture(0.8, score);
    for (uint32_t expert = 0; expert < kExperts; expert += 2) fixture.make_resident(1, expert);
    uint64_t changed = 0;
    for (int token = 0; token < 500; ++token) {
      fixture.route_token(1, fixture.random_logits());
      CHECK_EQUAL(fixture.chosen[0].expert, fixture.exact[0].expert);
      std::vector<bool> used(kExperts);
      for (size_t rank = 0; rank < fixture.chosen.size(); ++rank) {
        const RoutedExpert& one = fixture.chosen[rank];
        CHECK(!used[one.expert]);
        used[one.expert] = true;
        CHECK_EQUAL(one.weight, fixture.scores[one.expert]);
        if (one.expert == fixture.exact[rank].expert) continue;
        ++changed;
        CHECK_EQUAL(one.expert % 2, 0u);
        CHECK_EQUAL(fixture.exact[rank].expert % 2, 1u);
      }
    }
    const CacheRoutingStats& stats = fixture.routing.stats();
    CHECK(changed > 100);
    CHECK_EQUAL(stats.substitutions, changed);
    CHECK_EQUAL(stats.bytes_saved, changed * kExpertBytes);
  }
}

TEST("the agreement never falls below its target, and comes close to it") {
  for (const double target : {0.6, 0.8, 0.9, 0.95, 0.99}) {
    Fixture fixture(target);
    for (uint32_t expert = 0; expert < kExperts / 2; ++expert) {
      fixture.make_resident(0, expert);
      fixture.make_resident(1, expert);
    }
    for (int token = 0; token < 3000; ++token) {
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        fixture.route_token(layer, fixture.random_logits());
        CHECK(fixture.routing.stats().agreement() >= target - 1e-9);
      }
    }
    // As much as there is to gain: at most half of the choices are absent.
    if (target >= 0.8) CHECK(fixture.routing.stats().agreement() < target + 0.02);
  }
}

TEST("a long stretch of hits pays for no more than a few tokens of substitutions") {
  Fixture fixture(0.9);
  for (uint32_t expert = 0; expert < kExperts; ++expert) fixture.make_resident(0, expert);
  for (int token = 0; token < 10000; ++token) fixture.route_token(0, fixture.random_logits());
  for (uint32_t expert = 0; expert < kExperts; expert += 2) fixture.cache.drop({0, expert});
  const double before = fixture.routing.stats().lost_weight;
  constexpr int kTokens = 200;
  for (int token = 0; token < kTokens; ++token) fixture.route_token(0, fixture.random_logits());
  // The credit of 16 tokens of both layers, and what these tokens bring.
  CHECK(fixture.routing.stats().lost_weight - before <= 0.1 * (16 * kLayers + kTokens) + 1e-9);
}

TEST("lossy routing takes the cheapest substitutions") {
  Fixture fixture(0.9);
  for (uint32_t expert = 0; expert < kExperts / 2; ++expert) fixture.make_resident(0, expert);
  uint64_t by_rank[4] = {};
  for (int token = 0; token < 3000; ++token) {
    fixture.route_token(0, fixture.random_logits());
    for (size_t rank = 0; rank < 4; ++rank) {
      by_rank[rank] += fixture.chosen[rank].expert != fixture.exact[rank].expert;
    }
  }
  CHECK_EQUAL(by_rank[0], 0u);
  CHECK(by_rank[1] < by_rank[2]);
  CHECK(by_rank[2] < by_rank[3]);
}

TEST("lossy routing is deterministic, and logits that are no numbers change nothing") {
  Fixture one(0.8);
  Fixture other(0.8);
  for (uint32_t expert = 3; expert < kExperts; expert += 3) {
    one.make_resident(0, expert);
    other.make_resident(0, expert);
  }
  for (int token = 0; token < 300; ++token) {
    one.route_token(0, one.random_logits());
    other.route_token(0, other.random_logits());
    CHECK(same_experts(one.chosen, other.chosen));
  }
  one.route_token(0, std::vector<float>(kExperts, std::numeric_limits<float>::quiet_NaN()));
  CHECK(same_experts(one.chosen, one.exact));
}

}  // namespace
}  // namespace edgemoe
