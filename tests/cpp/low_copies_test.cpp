// The rule by which low copies serve, and what the store does with them.
#include "model/low_copies.h"

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/units.h"
#include "experts/expert_store.h"
#include "temporary_file.h"
#include "test.h"

namespace edgemoe {
namespace {

constexpr uint32_t kExperts = 8;
constexpr uint32_t kSide = 64;
constexpr uint32_t kWithout = 7;  // has no low copy

constexpr uint64_t kFullBytes = uint64_t{kSide} * kSide * 4;
const uint64_t kLowBytes = kSide * row_bytes(QuantType::kQ8_0, kSide);

ExpertTensor tensor_of(QuantType type) {
  ExpertTensor tensor;
  tensor.rows = tensor.columns = kSide;
  tensor.types.assign(kExperts, type);
  tensor.shards.assign(kExperts, 0);
  tensor.offsets.assign(kExperts, 0);
  return tensor;
}

// One layer; behind every expert its low copy.
struct Tensors {
  Tensors() : experts(1, {tensor_of(QuantType::kF32)}), low(1, {tensor_of(QuantType::kQ8_0)}) {
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      experts[0][0].offsets[expert] = bytes;
      bytes += kFullBytes;
      if (expert == kWithout) continue;
      low[0][0].offsets[expert] = bytes;
      bytes += align_up(kLowBytes, 4096);
    }
  }
  ExpertLayout layout(uint64_t alignment) const {
    return ExpertLayout(experts, kExperts, alignment, true, low);
  }

  uint64_t bytes = 4096;
  std::vector<std::vector<ExpertTensor>> experts;
  std::vector<std::vector<ExpertTensor>> low;
};

void make_resident(ExpertCache& cache, uint32_t number) {
  cache.reserve({0, number}, 4096);
  cache.finish_load({0, number});
  cache.unpin({0, number});
}

// The numbers that are asked for, in the order of the experts.
std::vector<uint32_t> chosen(LowCopies& copies, const std::vector<RoutedExpert>& routed) {
  std::vector<ExpertDemand> needed;
  for (uint32_t expert = 0; expert < kExperts; ++expert) {
    for (const RoutedExpert& one : routed) {
      if (one.expert == expert) needed.push_back({expert, 1.0f});
    }
  }
  copies.choose(0, routed, needed);
  std::vector<uint32_t> numbers;
  for (const ExpertDemand& one : needed) numbers.push_back(one.expert);
  return numbers;
}

using Numbers = std::vector<uint32_t>;

struct Rule {
  explicit Rule(double threshold) : copies(threshold, cache, layout) {}
  ExpertLayout layout = Tensors().layout(1);
  ExpertCache cache{1, kExperts, 64 * 4096, EvictionPolicy::kLru, true};
  LowCopies copies;
};

// Weights of a family that does not normalise them: they add up to 2.
const std::vector<RoutedExpert> kRouted = {{5, 1.0f}, {2, 0.6f}, {0, 0.2f}, {7, 0.2f}};

TEST("low copies serve where the experts ranked before have more than the threshold") {
  for (const auto& [threshold, expected] : {std::pair{0.0, Numbers{8, 10, 5, 7}},
                                            {0.49, Numbers{8, 10, 5, 7}},
                                            {0.5, Numbers{8, 2, 5, 7}},
                                            {0.79, Numbers{8, 2, 5, 7}},
                                            {0.85, Numbers{0, 2, 5, 7}}}) {
    Rule rule(threshold);
    CHECK(chosen(rule.copies, kRouted) == expected);
  }
}

TEST("an expert that is in memory or on its way is used itself") {
  Rule rule(0.1);
  make_resident(rule.cache, 2);
  rule.cache.reserve({0, 0}, 4096);  // is loading
  CHECK((chosen(rule.copies, kRouted) == Numbers{0, 2, 5, 7}));
  CHECK_EQUAL(rule.copies.stats().low_choices, 0u);
  CHECK_EQUAL(rule.copies.stats().low_share(), 0.0);
}

TEST("what low copies did is counted by weight, and bytes only where they were read") {
  Rule rule(0.4);
  CHECK((chosen(rule.copies, kRouted) == Numbers{8, 10, 5, 7}));
  const LowCopyStats first = rule.copies.stats();
  CHECK_EQUAL(first.choices, 4u);
  CHECK_EQUAL(first.low_choices, 2u);
  CHECK(std::abs(first.low_share() - 0.4) < 1e-6);
  CHECK_EQUAL(first.bytes_saved, 2 * (kFullBytes - kLowBytes));
  make_resident(rule.cache, 8);
  make_resident(rule.cache, 10);
  chosen(rule.copies, kRouted);
  CHECK_EQUAL(rule.copies.stats().low_choices, 4u);
  CHECK_EQUAL(rule.copies.stats().bytes_saved, first.bytes_saved);
}

TEST("weights that are no numbers change nothing") {
  Rule rule(0.0);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK((chosen(rule.copies, {{1, nan}, {2, nan}}) == Numbers{1, 2}));
  CHECK((chosen(rule.copies, {{1, 0.0f}, {2, 0.0f}}) == Numbers{1, 2}));
  CHECK_EQUAL(rule.copies.stats().choices, 0u);
}

struct Store {
  explicit Store(const std::string& backend, uint64_t pool_bytes = 1 << 20) : file(tensors.bytes) {
    files.emplace_back(file.path(), access_for_backend(backend));
    ExpertStoreOptions options;
    options.pool_bytes = pool_bytes;
    ReaderOptions reader;
    reader.backend = backend;
    store = std::make_unique<ExpertStore>(tensors.layout(files[0].alignment()), files,
                                          make_reader(reader, files[0]), options);
  }

  // Takes what the numbers name, and compares it with the file.
  void run(const Numbers& numbers) {
    std::vector<ExpertDemand> demands;
    for (const uint32_t number : numbers) demands.push_back({number, 1.0f});
    store->begin_step(Phase::kDecode);
    auto request = store->request(0, demands);
    size_t seen = 0;
    for (;;) {
      const auto ready = request.next(Wait::kAtLeastOne);
      if (ready.empty()) break;
      for (const ReadyExpert& one : ready) {
        CHECK_EQUAL(one.id.expert, numbers[one.position]);
        const bool is_low = one.id.expert >= kExperts;
        const auto& tensor = (is_low ? tensors.low : tensors.experts)[0][0];
        const uint64_t offset = tensor.offsets[one.id.expert % kExperts];
        CHECK(one.matrices[0].type == (is_low ? QuantType::kQ8_0 : QuantType::kF32));
        CHECK(std::memcmp(one.matrices[0].data, file.data() + offset,
                          is_low ? kLowBytes : kFullBytes) == 0);
        ++seen;
      }
    }
    CHECK_EQUAL(seen, numbers.size());
  }
  bool holds(uint32_t number) const {
    return store->cache().state({0, number}) == ExpertCache::State::kResident;
  }

  Tensors tensors;
  test::TemporaryFile file;
  std::vector<File> files;
  std::unique_ptr<ExpertStore> store;
};

TEST("experts and low copies come side by side with the bytes of the file") {
  for (const std::string backend : {"auto", "buffered", "simulated:seed=1,reorder=1,short=0.3"}) {
    for (const uint64_t slots : {2u, 3u, 20u}) {
      Store store(backend, slots * 5 * 4096);
      for (int round = 0; round < 4; ++round) {
        store.run({1, 10, 5, 14});
        store.run({8, 9, 10, 11, 12, 13, 14, 7});
        store.run({0, 1, 2, 3, 4, 5, 6, 7});
      }
    }
  }
}

TEST("a low copy makes way when its expert comes, and costs no eviction then") {
  Store store("buffered");
  store.run({10, 11});
  CHECK(store.holds(10) && store.holds(11));
  const uint64_t low_bytes = store.store->stats().bytes_read;
  CHECK(low_bytes < kFullBytes);
  store.run({2});
  CHECK(store.holds(2) && !store.holds(10) && store.holds(11));
  CHECK_EQUAL(store.store->stats().evictions, 0u);
  CHECK_EQUAL(store.store->stats().demands, 3u);
  CHECK_EQUAL(store.store->stats().hits, 0u);
  store.run({11});
  CHECK_EQUAL(store.store->stats().hits, 1u);
}

TEST("a low copy that cannot be read is named, and the store stays usable") {
  Store store("simulated:eio_after=0,eio_count=20");
  std::string message;
  for (int attempt = 0; attempt < 30 && message.empty(); ++attempt) {
    try {
      store.run({11});
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kIo);
      message = error.what();
    }
  }
  CHECK(message.find("the low copy of expert 3 of layer 0") != std::string::npos);
  for (int attempt = 0; attempt < 30 && !store.holds(11); ++attempt) {
    try {
      store.run({11});
    } catch (const Error&) {
      continue;
    }
  }
  CHECK(store.holds(11));
}

}  // namespace
}  // namespace edgemoe
