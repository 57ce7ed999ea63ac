#include "experts/expert_cache.h"

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "test.h"

namespace edgemoe {
namespace {

constexpr uint32_t kLayers = 4;
constexpr uint32_t kExperts = 32;

// Loads an expert if it is absent; true when it was a hit.
bool use(ExpertCache& cache, ExpertId id, uint64_t bytes) {
  cache.set_current_layer(id.layer);
  cache.record_use(id, 1.0);
  if (cache.state(id) == ExpertCache::State::kResident) return true;
  if (!cache.reserve(id, bytes)) return false;
  cache.finish_load(id);
  cache.unpin(id);
  return false;
}

TEST("slots never overlap and stay inside the pool, whatever happens") {
  std::mt19937 random(7);
  for (const EvictionPolicyName& policy : eviction_policies()) {
    constexpr uint64_t kPool = 100 * 4096;
    const uint64_t sizes[] = {4096, 3 * 4096, 7 * 4096};
    ExpertCache cache(kLayers, kExperts, kPool, policy.policy);
    std::map<uint32_t, uint32_t> pinned;  // expert number -> pins
    std::set<uint32_t> loading;
    for (int step = 0; step < 4000; ++step) {
      const auto number = static_cast<uint32_t>(random() % (kLayers * kExperts));
      const ExpertId id{number / kExperts, number % kExperts};
      const uint64_t bytes = sizes[number % 3];
      const auto action = static_cast<uint32_t>(random() % 8);
      if (cache.state(id) == ExpertCache::State::kAbsent) {
        REQUIRE(!pinned.contains(number));
        if (cache.reserve(id, bytes)) loading.insert(number);
      } else if (loading.contains(number)) {
        loading.erase(number);
        if (action == 0) {
          cache.abandon_load(id);
        } else {
          cache.finish_load(id);
          cache.unpin(id);
        }
      } else if (action < 2) {
        cache.pin(id);
        ++pinned[number];
      } else if (pinned.contains(number)) {
        cache.unpin(id);
        if (--pinned[number] == 0) pinned.erase(number);
      }
      if (step % 50 == 0) cache.begin_step();
      cache.record_use(id, 0.5);
      std::map<uint64_t, uint64_t> places;
      uint64_t used = 0;
      for (uint32_t n = 0; n < kLayers * kExperts; ++n) {
        const ExpertId one{n / kExperts, n % kExperts};
        if (cache.state(one) == ExpertCache::State::kAbsent) continue;
        places[cache.slot_offset(one)] = sizes[n % 3];
        used += sizes[n % 3];
      }
      uint64_t end = 0;
      for (const auto& [offset, size] : places) {
        REQUIRE(offset >= end);
        end = offset + size;
      }
      REQUIRE(end <= kPool);
      REQUIRE(used == cache.used_bytes());
      for (const auto& [n, pins] : pinned) {
        const ExpertId one{n / kExperts, n % kExperts};
        REQUIRE(cache.state(one) == ExpertCache::State::kResident);
        REQUIRE(cache.pins(one) == pins);
      }
    }
  }
}

TEST("pinned and loading slots leave no room, and that is said") {
  ExpertCache cache(1, 4, 2 * 4096, EvictionPolicy::kLru);
  REQUIRE(cache.reserve({0, 0}, 4096).has_value());
  REQUIRE(cache.reserve({0, 1}, 4096).has_value());
  CHECK(!cache.reserve({0, 2}, 4096));
  cache.finish_load({0, 0});
  CHECK(!cache.reserve({0, 2}, 4096));  // still pinned
  cache.unpin({0, 0});
  CHECK(cache.reserve({0, 2}, 4096).has_value());
  CHECK(cache.state({0, 0}) == ExpertCache::State::kAbsent);
  CHECK_EQUAL(cache.evictions(), 1u);
}

// A cache whose pool has contents, and what a caller of it does at random.
class BusyCache {
 public:
  BusyCache(EvictionPolicy policy, uint64_t pages)
      : cache_(kLayers, kExperts, pages * kPage, policy), contents_(kMostPages, kNobody) {}

  void act(std::mt19937& random) {
    const auto number = static_cast<uint32_t>(random() % (kLayers * kExperts));
    const ExpertId id = id_of(number);
    const auto action = static_cast<uint32_t>(random() % 8);
    if (cache_.state(id) == ExpertCache::State::kAbsent) {
      if (const auto slot = cache_.reserve(id, bytes_of(number))) {
        CHECK(*slot + bytes_of(number) <= cache_.pool_bytes());
        fill(*slot, bytes_of(number), number);
        loading_.insert(number);
      }
    } else if (loading_.erase(number) > 0) {
      action == 0 ? cache_.abandon_load(id) : cache_.finish_load(id);
      if (action != 0) cache_.unpin(id);
    } else if (action < 2) {
      cache_.pin(id);
      ++pinned_[number];
    } else if (pinned_.contains(number)) {
      cache_.unpin(id);
      if (--pinned_[number] == 0) pinned_.erase(number);
    }
    cache_.record_use(id, 0.5);
  }

  void release_all() {
    for (const uint32_t number : loading_) {
      cache_.finish_load(id_of(number));
      cache_.unpin(id_of(number));
    }
    for (; !pinned_.empty(); pinned_.erase(pinned_.begin())) {
      const auto& [number, pins] = *pinned_.begin();
      for (uint32_t i = 0; i < pins; ++i) cache_.unpin(id_of(number));
    }
    loading_.clear();
  }

  void resize(uint64_t pages) {
    for (const SlotMove& move : cache_.resize(pages * kPage)) {
      std::memmove(&contents_[move.to / kPage], &contents_[move.from / kPage],
                   move.bytes / kPage * sizeof(uint32_t));
    }
  }

  // Every slot holds its expert, nothing that is held was lost, the counters are right.
  void check() {
    uint64_t used = 0;
    uint64_t behind = 0;
    size_t resident = 0;
    for (uint32_t number = 0; number < kLayers * kExperts; ++number) {
      const ExpertId id = id_of(number);
      const bool held = loading_.contains(number) || pinned_.contains(number);
      REQUIRE(!held || cache_.state(id) != ExpertCache::State::kAbsent);
      if (cache_.state(id) == ExpertCache::State::kAbsent) continue;
      const uint64_t slot = cache_.slot_offset(id);
      for (uint64_t at = 0; at < bytes_of(number); at += kPage) {
        REQUIRE(contents_[(slot + at) / kPage] == number);
      }
      used += bytes_of(number);
      resident += loading_.contains(number) ? 0 : 1;
      if (slot + bytes_of(number) > cache_.pool_bytes()) behind += bytes_of(number);
    }
    REQUIRE(used == cache_.used_bytes());
    REQUIRE(resident == cache_.num_resident());
    REQUIRE(used - behind <= cache_.pool_bytes());
    REQUIRE(behind == 0 || cache_.has_slots_behind());
  }
  const ExpertCache& cache() const { return cache_; }

  static constexpr uint64_t kPage = 4096;
  static constexpr uint64_t kMostPages = 300;

 private:
  static constexpr uint32_t kNobody = ~0u;
  static ExpertId id_of(uint32_t number) { return {number / kExperts, number % kExperts}; }
  static uint64_t bytes_of(uint32_t number) { return (1 + number % 3 * 3) * kPage; }
  void fill(uint64_t slot, uint64_t bytes, uint32_t number) {
    for (uint64_t at = 0; at < bytes; at += kPage) contents_[(slot + at) / kPage] = number;
  }

  ExpertCache cache_;
  std::vector<uint32_t> contents_;       // expert number by page
  std::map<uint32_t, uint32_t> pinned_;  // expert number -> pins
  std::set<uint32_t> loading_;
};

TEST("a pool that shrinks and grows keeps every slot that is held and the bytes of all others") {
  std::mt19937 random(11);
  for (const EvictionPolicyName& policy : eviction_policies()) {
    BusyCache busy(policy.policy, 100);
    for (int step = 0; step < 6000; ++step) {
      busy.act(random);
      if (random() % 10 == 0) {
        if (random() % 4 == 0) busy.release_all();
        busy.resize(14 + random() % (BusyCache::kMostPages - 14));
      }
      busy.check();
    }
    busy.release_all();
    busy.resize(50);
    busy.check();
    CHECK(!busy.cache().has_slots_behind());
    CHECK(busy.cache().used_bytes() <= 50 * BusyCache::kPage);
  }
}

TEST("a pool that shrinks loses its least valuable experts, wherever they lie") {
  for (const bool valuable_last : {false, true}) {
    ExpertCache cache(1, 32, 16 * 4096, EvictionPolicy::kLfu);
    for (uint32_t i = 0; i < 16; ++i) {
      const uint32_t uses = valuable_last ? i + 1 : 16 - i;
      for (uint32_t n = 0; n < uses; ++n) use(cache, {0, i}, 4096);
    }
    cache.begin_step();
    const std::vector<SlotMove> moves = cache.resize(6 * 4096);
    CHECK_EQUAL(moves.size(), valuable_last ? 6u : 0u);
    for (uint32_t i = 0; i < 16; ++i) {
      const bool kept = valuable_last ? i >= 10 : i < 6;
      CHECK_EQUAL(cache.state({0, i}) == ExpertCache::State::kResident, kept);
    }
    CHECK_EQUAL(cache.used_bytes(), 6u * 4096);
    CHECK(cache.resize(8 * 4096).empty());
    for (uint32_t i = 16; i < 18; ++i) use(cache, {0, i}, 4096);
    CHECK_EQUAL(cache.used_bytes(), 8u * 4096);
  }
}

TEST("a pinned slot behind the end stays until it is released") {
  ExpertCache cache(1, 8, 4 * 4096, EvictionPolicy::kLru);
  for (uint32_t expert = 0; expert < 4; ++expert) use(cache, {0, expert}, 4096);
  cache.pin({0, 3});
  CHECK(cache.resize(2 * 4096).size() == 1);  // expert 2 is younger than 0
  CHECK(cache.has_slots_behind());
  CHECK_EQUAL(cache.slot_offset({0, 3}), 3u * 4096);
  CHECK(cache.state({0, 0}) == ExpertCache::State::kAbsent);
  REQUIRE(cache.reserve({0, 5}, 4096).has_value());
  CHECK(cache.slot_offset({0, 5}) < 2 * 4096);
  cache.unpin({0, 3});
  CHECK_EQUAL(cache.resize(2 * 4096).size(), 1u);
  CHECK(!cache.has_slots_behind());
  CHECK_EQUAL(cache.used_bytes(), 2u * 4096);
}

// What is lost of a busy pool, on average, with experts of `num_sizes` sizes from 2 to 6.6 bits per
// weight. Every layer of a step uses 4 of its 32 experts, skewed as routing is.
double lost_share(EvictionPolicy policy, uint64_t num_sizes, uint64_t pool_pages) {
  constexpr uint32_t kManyLayers = 24;
  constexpr uint64_t kLeastPages = 276;
  constexpr uint64_t kMorePages = 592;
  std::mt19937 random(3);
  std::vector<uint64_t> bytes(kManyLayers * kExperts);
  for (uint64_t& one : bytes) {
    one = (kLeastPages + random() % num_sizes * kMorePages / (num_sizes - 1)) * 4096;
  }
  ExpertCache cache(kManyLayers, kExperts, pool_pages * 4096, policy);
  double lost = 0;
  int samples = 0;
  for (int step = 0; step < 200; ++step) {
    cache.begin_step();
    for (uint32_t layer = 0; layer < kManyLayers; ++layer) {
      for (int used = 0; used < 4; ++used) {
        const auto expert = static_cast<uint32_t>(std::min(random() % 32, random() % 32));
        use(cache, {layer, expert}, bytes[layer * kExperts + expert]);
      }
    }
    if (step < 50) continue;
    lost += 1.0 - static_cast<double>(cache.used_bytes()) / static_cast<double>(cache.pool_bytes());
    ++samples;
  }
  return lost / samples;
}

TEST("with slots of several sizes at most 3 % of a busy pool is lost") {
  constexpr uint64_t kTokenPages = 24 * 4 * 572;  // what a step uses on average
  for (const EvictionPolicyName& policy : eviction_policies()) {
    for (const uint64_t num_sizes : {2, 3, 4, 6, 9, 12}) {
      for (const uint64_t tenths : {5, 10, 20, 40, 60}) {
        const double lost = lost_share(policy.policy, num_sizes, kTokenPages * tenths / 10);
        if (lost < 0.03) continue;
        test::report_failure(__FILE__, __LINE__,
                             std::string(policy.name) + " loses " + std::to_string(lost) +
                                 " with " + std::to_string(num_sizes) + " sizes and " +
                                 std::to_string(tenths) + " tenths of a token's experts");
      }
    }
  }
}

TEST("while nothing is pinned there is room for any expert, and for two of the largest") {
  std::mt19937 random(13);
  const uint64_t sizes[] = {3, 5, 7, 8, 11};
  constexpr uint64_t kLargest = 11;
  for (const EvictionPolicyName& policy : eviction_policies()) {
    ExpertCache cache(kLayers, kExperts, 2 * kLargest * 4096, policy.policy);
    for (int step = 0; step < 2000; ++step) {
      const auto number = static_cast<uint32_t>(random() % (kLayers * kExperts));
      const ExpertId one{number / kExperts, number % kExperts};
      if (cache.state(one) == ExpertCache::State::kResident) continue;
      REQUIRE(cache.reserve(one, sizes[(one.layer + one.expert) % 5] * 4096).has_value());
      cache.finish_load(one);
      cache.unpin(one);
      if (random() % 10 == 0) cache.begin_step();
    }
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t expert = 0; expert < kExperts; ++expert) {
        const ExpertId id{layer, expert};
        if (cache.state(id) == ExpertCache::State::kResident) cache.drop(id);
      }
    }
    CHECK(cache.has_room(2 * kLargest * 4096));
    CHECK(!cache.has_room(2 * kLargest * 4096 + 1));
    CHECK(cache.reserve({0, 0}, kLargest * 4096) && cache.reserve({0, 1}, kLargest * 4096));
    CHECK(!cache.has_room(4096));
  }
}

// Hit rate of a cycle over more experts than fit.
double cyclic_hits(EvictionPolicy policy) {
  ExpertCache cache(8, 4, 20 * 4096, policy);
  int hits = 0;
  for (int step = 0; step < 100; ++step) {
    cache.begin_step();
    for (uint32_t layer = 0; layer < 8; ++layer) {
      for (uint32_t expert = 0; expert < 4; ++expert) {
        if (use(cache, {layer, expert}, 4096)) ++hits;
      }
    }
  }
  return hits / 3200.0;
}

TEST("a pool below one token's demand still hits with the default policy, and never with LRU") {
  CHECK_EQUAL(cyclic_hits(EvictionPolicy::kLru), 0.0);
  CHECK(cyclic_hits(EvictionPolicy::kLayerAware) > 0.4);
}

TEST("a protected expert goes only after every other one") {
  for (const EvictionPolicyName& policy : eviction_policies()) {
    ExpertCache cache(2, 8, 4 * 4096, policy.policy);
    cache.protect({0, 0});  // before it is loaded: protection is of the expert, not of the slot
    for (uint32_t expert = 0; expert < 4; ++expert) use(cache, {0, expert}, 4096);
    for (int i = 0; i < 5; ++i) {
      for (uint32_t expert = 1; expert < 4; ++expert) use(cache, {0, expert}, 4096);
    }
    for (uint32_t expert = 0; expert < 6; ++expert) use(cache, {1, expert}, 4096);
    CHECK(cache.state({0, 0}) == ExpertCache::State::kResident);
    cache.protect({1, 5});
    cache.clear_protection(0);
    for (uint32_t expert = 0; expert < 8; ++expert) {
      for (int i = 0; i < 9; ++i) use(cache, {0, (expert + 1) % 8}, 4096);
    }
    CHECK(cache.state({1, 5}) == ExpertCache::State::kResident);
    for (uint32_t expert = 0; expert < 8; ++expert) cache.protect({0, expert});
    use(cache, {1, 0}, 4096);  // all are protected: one of them goes
    CHECK(cache.state({1, 0}) == ExpertCache::State::kResident);
  }
}

TEST("a pin that is given up makes its slot the next to go, in the middle of a request") {
  ExpertCache cache(1, 8, 2 * 4096, EvictionPolicy::kLru);
  use(cache, {0, 0}, 4096);
  use(cache, {0, 1}, 4096);
  cache.pin({0, 0});
  REQUIRE(cache.reserve({0, 2}, 4096).has_value());
  CHECK(cache.state({0, 1}) == ExpertCache::State::kAbsent);
  CHECK(!cache.reserve({0, 3}, 4096));
  cache.unpin({0, 0});
  REQUIRE(cache.reserve({0, 3}, 4096).has_value());
  CHECK(cache.state({0, 0}) == ExpertCache::State::kAbsent);
}

TEST("a dropped expert leaves a gap that joins its neighbours") {
  ExpertCache cache(kLayers, kExperts, 3 * 4096, EvictionPolicy::kLru);
  for (uint32_t expert = 0; expert < 3; ++expert) use(cache, {0, expert}, 4096);
  for (const uint32_t expert : {0u, 2u, 1u}) cache.drop({0, expert});
  CHECK_EQUAL(cache.evictions(), 3u);
  CHECK_EQUAL(cache.num_resident(), 0u);
  CHECK_EQUAL(cache.used_bytes(), 0u);
  CHECK(cache.reserve({1, 0}, 3 * 4096).has_value());
}

TEST("an expert and its low copy are equally popular, and take up what was kept of either") {
  constexpr uint32_t kFew = 4;
  ExpertCache cache(2, kFew, 8 * 4096, EvictionPolicy::kLayerAware, true);
  cache.begin_step();
  use(cache, {1, kFew + 2}, 2048);  // the low copy of expert 2
  CHECK(cache.state({1, 2}) == ExpertCache::State::kAbsent);
  CHECK(cache.state({1, kFew + 2}) == ExpertCache::State::kResident);
  use(cache, {1, 2}, 4096);
  cache.begin_step();
  CHECK_EQUAL(cache.history({1, 2}).popularity, cache.history({1, kFew + 2}).popularity);
  CHECK(cache.history({1, 2}).popularity > cache.history({1, 1}).popularity);
  const std::vector<std::byte> kept = cache.save_popularity();
  ExpertCache without(2, kFew, 8 * 4096, EvictionPolicy::kLayerAware);
  CHECK(without.load_popularity(kept));
  CHECK(without.history({1, 2}).popularity > without.history({1, 1}).popularity);
  CHECK(cache.load_popularity(kept));
  CHECK_EQUAL(cache.history({1, 2}).popularity, without.history({1, 2}).popularity);
  CHECK_EQUAL(cache.history({1, kFew + 2}).popularity, without.history({1, 2}).popularity);
}

TEST("a long prompt does not push out what decoding uses") {
  ExpertCache cache(1, 64, 8 * 4096, EvictionPolicy::kLayerAware);
  for (int step = 0; step < 50; ++step) {
    cache.begin_step();
    for (uint32_t expert = 0; expert < 4; ++expert) use(cache, {0, expert}, 4096);
  }
  cache.begin_step();
  for (uint32_t expert = 0; expert < 64; ++expert) {  // one step whose rows use every expert
    cache.record_use({0, expert}, 8.0 / 64);
    if (cache.state({0, expert}) != ExpertCache::State::kAbsent) continue;
    REQUIRE(cache.reserve({0, expert}, 4096).has_value());
    cache.finish_load({0, expert});
    cache.unpin({0, expert});
  }
  for (uint32_t expert = 0; expert < 4; ++expert) {
    CHECK(cache.state({0, expert}) == ExpertCache::State::kResident);
  }
}

TEST("the paper's rule keeps by frequency over the layers until the layer runs again") {
  ExpertHistory history;
  history.uses = 6;
  const double worth = expert_worth(EvictionPolicy::kPaper, history, 0);
  CHECK_EQUAL(worth * layer_urgency(EvictionPolicy::kPaper, 1, 12), 6.0);
  CHECK_EQUAL(worth * layer_urgency(EvictionPolicy::kPaper, 3, 12), 2.0);
  CHECK_EQUAL(worth * layer_urgency(EvictionPolicy::kPaper, 12, 12), 0.5);
}

TEST("popularity follows what routing does now and remembers what it always did") {
  Popularity popularity(3);
  for (int step = 0; step < 200; ++step) {
    popularity.begin_step();
    popularity.begin_layer(0, 3);
    popularity.record_use(0, step < 190 ? 1.0f : 0.0f);  // long in use, not any more
    popularity.record_use(1, step < 190 ? 0.0f : 1.0f);  // new
  }
  CHECK(popularity[1] > popularity[0]);
  CHECK(popularity[0] > 10 * popularity[2]);
  CHECK(popularity[2] <= kUnseenPopularity);
  for (int step = 0; step < 20; ++step) {
    popularity.begin_step();
    popularity.begin_layer(0, 3);
  }
  CHECK(popularity[0] > popularity[1]);  // a short burst is forgotten sooner
}

TEST("an unknown policy is refused with the list of those that exist") {
  const std::string message =
      ERROR_MESSAGE(ErrorCode::kArgument, eviction_policy_from_name("random"));
  for (const EvictionPolicyName& policy : eviction_policies()) {
    CHECK(message.find(policy.name) != std::string::npos);
    CHECK(eviction_policy_from_name(policy.name) == policy.policy);
  }
}

}  // namespace
}  // namespace edgemoe
