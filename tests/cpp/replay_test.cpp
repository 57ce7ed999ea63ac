#include "experts/replay.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <iterator>
#include <random>

#include "experts/predictor_recall.h"
#include "test.h"

namespace edgemoe {
namespace {

struct Shape {
  uint32_t layers = 12;
  uint32_t experts = 32;
  uint32_t used = 4;
};

// Synthetic routing: the top of popularity + topic + chance, each by its weight. Popularity drifts;
// the topic changes slowly, or every so many tokens at once, or a share of it with each token.
struct Routing {
  float popularity = 0;
  float topic = 0;
  float drift = 0;  // per token
  float chance = 1;
  uint32_t topic_tokens = 0;
  float redrawn = 0;
};

std::vector<TraceRow> synthetic(const Shape& shape, const Routing& routing, uint32_t seed,
                                uint32_t tokens) {
  std::mt19937 random(seed);
  const auto noise = [&] {  // near enough to normal, and the same on every platform
    float sum = -6.0f;
    for (int i = 0; i < 12; ++i) sum += static_cast<float>(random()) / 4294967296.0f;
    return sum;
  };
  const size_t all = size_t{shape.layers} * shape.experts;
  std::vector<float> popularity(all);
  std::vector<float> topic(all);
  for (float& one : popularity) one = noise();
  for (float& one : topic) one = noise();
  std::vector<TraceRow> rows;
  for (uint32_t token = 0; token < tokens; ++token) {
    for (size_t i = 0; i < all; ++i) {
      if (routing.topic_tokens > 0) {
        if (token % routing.topic_tokens == 0) topic[i] = noise();
      } else if (routing.redrawn > 0) {
        if (static_cast<float>(random()) < routing.redrawn * 4294967296.0f) topic[i] = noise();
      } else {
        topic[i] = 0.98f * topic[i] + 0.2f * noise();
      }
      popularity[i] += routing.drift * noise();
    }
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
      std::vector<std::pair<float, uint32_t>> ranking;
      for (uint32_t expert = 0; expert < shape.experts; ++expert) {
        const size_t i = size_t{layer} * shape.experts + expert;
        const float score = routing.popularity * popularity[i] + routing.topic * topic[i] +
                            routing.chance * noise();
        ranking.emplace_back(-score, expert);
      }
      std::sort(ranking.begin(), ranking.end());
      for (uint32_t i = 0; i < shape.used; ++i) {
        rows.push_back({0, TracePhase::kDecode, token, layer, ranking[i].second});
      }
    }
  }
  return rows;
}

double hit_rate(const ReplayResult& result) {
  double hits = 0;
  double demands = 0;
  for (const ReplayCounts& phase : result.phases) {
    hits += static_cast<double>(phase.hits);
    demands += static_cast<double>(phase.demands);
  }
  return hits / demands;
}

constexpr double kPools[] = {0.05, 0.1, 0.2, 0.3, 0.5};

uint32_t slots(const RoutingTrace& trace, double share) {
  return static_cast<uint32_t>(share * trace.num_layers() * trace.num_experts());
}

TEST("the default is never below LRU, and no policy is above Belady, on any kind of routing") {
  const Shape shape;
  const Routing kinds[] = {
      {0, 0, 0},    {1, 0, 0}, {2, 0, 0},    {0, 1, 0},
      {0.5f, 2, 0}, {1, 1, 0}, {1, 0, 0.1f}, {1, 1, 0.1f},
  };
  double gain = 0;
  for (const Routing& kind : kinds) {
    const RoutingTrace trace(shape.layers, shape.experts, synthetic(shape, kind, 5, 300));
    for (const double pool : kPools) {
      const double best = hit_rate(replay_optimum(trace, slots(trace, pool)));
      const double lru = hit_rate(replay(trace, EvictionPolicy::kLru, slots(trace, pool)));
      const double own = hit_rate(replay(trace, EvictionPolicy::kLayerAware, slots(trace, pool)));
      CHECK(own > lru - 0.005);
      CHECK(own > 0);
      gain += (own - lru) / std::size(kinds) / std::size(kPools);
      for (const EvictionPolicyName& policy : eviction_policies()) {
        CHECK(hit_rate(replay(trace, policy.policy, slots(trace, pool))) <= best);
      }
    }
  }
  CHECK(gain > 0.03);
}

TEST("where routing repeats far more or less than in text, the default finds out") {
  const Shape shape{16, 48, 4};
  const Routing kinds[] = {
      {.topic = 1, .chance = 0, .redrawn = 0.1f}, {.topic = 1, .chance = 0, .redrawn = 0.2f},
      {.topic = 1, .chance = 0, .redrawn = 0.4f}, {.topic = 2, .topic_tokens = 10},
      {.topic = 2, .topic_tokens = 60},
  };
  for (const Routing& kind : kinds) {
    const RoutingTrace trace(shape.layers, shape.experts, synthetic(shape, kind, 7, 400));
    for (const double pool : {0.05, 0.09, 0.12, 0.16, 0.25, 0.5}) {
      const double lru = hit_rate(replay(trace, EvictionPolicy::kLru, slots(trace, pool)));
      const double own = hit_rate(replay(trace, EvictionPolicy::kLayerAware, slots(trace, pool)));
      CHECK(own > lru - 0.016);  // seven points were lost before estimates were corrected
    }
  }
}

TEST("Belady's optimum is the best that any choice of victims reaches") {
  // Every choice of victims is tried on short traces of one expert per request.
  std::mt19937 random(11);
  for (int round = 0; round < 30; ++round) {
    std::vector<TraceRow> rows;
    for (uint32_t token = 0; token < 11; ++token) {
      rows.push_back({0, TracePhase::kDecode, token, 0, static_cast<uint32_t>(random() % 4)});
    }
    const std::function<uint32_t(size_t, uint32_t)> most = [&](size_t at, uint32_t held) {
      if (at == rows.size()) return 0u;
      const uint32_t wanted = 1u << rows[at].expert;
      if ((held & wanted) != 0) return 1 + most(at + 1, held);
      if (std::popcount(held) < 2) return most(at + 1, held | wanted);
      uint32_t best = 0;
      for (uint32_t victim = 1; victim < 16; victim *= 2) {
        if ((held & victim) != 0) best = std::max(best, most(at + 1, (held ^ victim) | wanted));
      }
      return best;
    };
    const ReplayResult optimum = replay_optimum(RoutingTrace(1, 4, rows), 2);
    CHECK_EQUAL(optimum.phases[1].hits, most(0, 0));
  }
}

TEST("a prompt is one pass of layers with the distinct experts of all its tokens") {
  std::vector<TraceRow> rows;
  for (const uint32_t layer : {0u, 2u}) {  // layer 1 has no experts
    for (uint32_t step = 0; step < 4; ++step) {
      rows.push_back({0, TracePhase::kPrefill, step, layer, 0});
      rows.push_back({0, TracePhase::kPrefill, step, layer, 1 + step % 2});
    }
  }
  for (uint32_t step = 0; step < 2; ++step) {
    for (const uint32_t layer : {0u, 2u}) rows.push_back({0, TracePhase::kDecode, step, layer, 1});
  }
  const RoutingTrace trace(3, 4, rows);
  REQUIRE(trace.passes().size() == 3);
  const RoutingTrace::Pass& prompt = trace.passes()[0];
  REQUIRE(prompt.requests.size() == 2 && prompt.groups.size() == 8);
  CHECK_EQUAL(prompt.groups[7].token, 3u);
  CHECK_EQUAL(prompt.requests[1].layer, 2u);
  REQUIRE(prompt.requests[1].experts.size() == 3);
  CHECK_EQUAL(prompt.requests[1].shares[0], 1.0f);
  CHECK_EQUAL(prompt.requests[1].shares[2], 0.5f);
  const ReplayResult result = replay(trace, EvictionPolicy::kLru, 12);
  CHECK_EQUAL(result.phases[0].demands, 6u);
  CHECK_EQUAL(result.phases[0].hits, 0u);
  CHECK_EQUAL(result.phases[1].demands, 4u);
  CHECK_EQUAL(result.phases[1].hits, 4u);
}

TEST("a pool smaller than one request is replayed in waves") {
  const Shape shape;
  const RoutingTrace trace(shape.layers, shape.experts, synthetic(shape, {1, 0, 0}, 2, 50));
  for (const EvictionPolicyName& policy : eviction_policies()) {
    for (const uint32_t pool : {1u, 2u, 3u, 5u}) {
      const ReplayResult result = replay(trace, policy.policy, pool);
      CHECK_EQUAL(result.phases[1].demands, 12u * 4 * 50);
    }
  }
  CHECK(hit_rate(replay(trace, EvictionPolicy::kLayerAware, 5)) > 0);
}

TEST("experts that no token uses change nothing") {
  const Shape shape;
  const std::vector<TraceRow> rows = synthetic(shape, {1, 1, 0}, 3, 60);
  const RoutingTrace trace(shape.layers, shape.experts, rows);
  // The same experts in the same order, with gaps between them.
  std::vector<TraceRow> spread = rows;
  for (TraceRow& row : spread) row.expert = 1000 * row.expert + 7;
  const RoutingTrace sparse(shape.layers, 1000 * shape.experts, spread);
  for (const EvictionPolicyName& policy : eviction_policies()) {
    const ReplayResult one = replay(trace, policy.policy, 40);
    const ReplayResult other = replay(sparse, policy.policy, 40);
    CHECK_EQUAL(one.phases[1].hits, other.phases[1].hits);
    CHECK_EQUAL(one.evictions, other.evictions);
  }
}

TEST("a replay stops when it is asked to") {
  const Shape shape;
  const RoutingTrace trace(shape.layers, shape.experts, synthetic(shape, {1, 0, 0}, 2, 20));
  int left = 10;
  const auto stop = [&left] { return left-- <= 0; };
  ERROR_MESSAGE(ErrorCode::kCancelled, replay(trace, EvictionPolicy::kLru, 9, stop));
  left = 10;
  ERROR_MESSAGE(ErrorCode::kCancelled, replay_optimum(trace, 9, stop));
  left = 10;
  ERROR_MESSAGE(ErrorCode::kCancelled, predictor_recall(trace, stop));
}

TEST("a trace that names what the model has not is refused") {
  const std::vector<TraceRow> rows = {{}, {0, TracePhase::kDecode, 0, 1, 9}};
  const std::string message = ERROR_MESSAGE(ErrorCode::kArgument, RoutingTrace(2, 8, rows));
  CHECK(message.find("row 1") != std::string::npos);
  CHECK(message.find("expert 9 of layer 1") != std::string::npos);
  CHECK(RoutingTrace(0, 0, {}).passes().empty());
}

TEST("routing that follows a rule is predicted by transitions, and by token where ids are known") {
  std::mt19937 random(4);
  std::vector<TraceRow> rows;
  for (uint32_t token = 0; token < 400; ++token) {
    const auto id = static_cast<uint32_t>(random() % 16);
    for (uint32_t layer = 0; layer < 4; ++layer) {
      const uint32_t expert = (id * (2 * layer + 1) + layer) % 16;
      rows.push_back({0, TracePhase::kDecode, token, layer, expert, id});
    }
  }
  const PredictorRecall recall = predictor_recall(RoutingTrace(4, 16, rows));
  CHECK_EQUAL(recall.wanted, 1200u);
  CHECK(recall.popular < recall.wanted / 4);
  CHECK(recall.transitions > recall.wanted * 9 / 10);
  CHECK_EQUAL(recall.token_wanted, 1600u);
  CHECK(recall.token_table > recall.token_wanted * 9 / 10);
}

}  // namespace
}  // namespace edgemoe
