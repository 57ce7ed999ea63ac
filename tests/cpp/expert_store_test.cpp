#include "experts/expert_store.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "temporary_file.h"
#include "test.h"

namespace edgemoe {
namespace {

using test::TemporaryFile;

constexpr uint32_t kLayers = 3;
constexpr uint32_t kExperts = 8;
constexpr uint32_t kRows = 16;
constexpr uint32_t kColumns = 64;
constexpr uint64_t kMatrixBytes = uint64_t{kRows} * kColumns * sizeof(float);
constexpr uint64_t kOffset = 1056;  // GGUF aligns to 32 bytes, not to what direct reads need
constexpr uint64_t kFileBytes = kOffset + kLayers * 3 * kExperts * kMatrixBytes + 77;

ExpertTensor tensor_at(ExpertMatrix matrix, uint64_t offset, bool fused = false) {
  ExpertTensor tensor;
  tensor.matrix = matrix;
  tensor.fused_gate_up = fused;
  tensor.rows = kRows;
  tensor.columns = kColumns;
  for (uint32_t expert = 0; expert < kExperts; ++expert) {
    tensor.shards.push_back(0);
    tensor.types.push_back(QuantType::kF32);
    tensor.offsets.push_back(offset + expert * kMatrixBytes * (fused ? 2 : 1));
  }
  return tensor;
}

// Layers 0 and 2 have experts in three tensors, layer 1 in a fused and a plain one.
std::vector<std::vector<ExpertTensor>> tensors() {
  std::vector<std::vector<ExpertTensor>> layers(kLayers);
  uint64_t offset = kOffset;
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    if (layer == 1) {
      layers[layer].push_back(tensor_at(ExpertMatrix::kGate, offset, true));
      offset += 2 * kExperts * kMatrixBytes;
    } else {
      for (const ExpertMatrix matrix : {ExpertMatrix::kGate, ExpertMatrix::kUp}) {
        layers[layer].push_back(tensor_at(matrix, offset));
        offset += kExperts * kMatrixBytes;
      }
    }
    layers[layer].push_back(tensor_at(ExpertMatrix::kDown, offset));
    offset += kExperts * kMatrixBytes;
  }
  return layers;
}

// Where the file has a matrix.
uint64_t offset_of(uint32_t layer, uint32_t expert, size_t matrix) {
  const uint64_t first = kOffset + layer * 3 * kExperts * kMatrixBytes;
  if (layer == 1 && matrix < 2) return first + (2 * expert + matrix) * kMatrixBytes;
  return first + (matrix * kExperts + expert) * kMatrixBytes;
}

class Fixture {
 public:
  explicit Fixture(const std::string& backend, double slots = 100, ExpertStoreOptions options = {})
      : temporary_(kFileBytes), backend_(backend) {
    files_.push_back(open_for_backend(temporary_.path(), backend));
    ExpertLayout layout(tensors(), kExperts, files_[0].alignment());
    options.pool_bytes =
        static_cast<uint64_t>(slots * static_cast<double>(layout.max_slot_bytes()));
    options.most_pool_bytes = 40 * layout.max_slot_bytes();
    ReaderOptions reader;
    reader.backend = backend;
    store_ = std::make_unique<ExpertStore>(std::move(layout), files_,
                                           make_reader(reader, files_[0]), options);
  }
  ExpertStore& store() { return *store_; }

  // Takes every expert of a request and compares its bytes with the file's; returns the experts.
  std::set<uint32_t> run(uint32_t layer, const std::vector<uint32_t>& experts) {
    std::vector<ExpertDemand> demands;
    for (const uint32_t expert : experts) demands.push_back({expert, 1.0f});
    std::set<uint32_t> seen;
    store_->begin_step(Phase::kDecode);
    auto request = store_->request(layer, demands);
    for (auto ready = request.next(Wait::kNo);;) {
      for (const ReadyExpert& expert : ready) check(layer, experts, expert, seen);
      ready = request.next(Wait::kAtLeastOne);
      if (ready.empty()) break;
    }
    return seen;
  }

 private:
  void check(uint32_t layer, const std::vector<uint32_t>& experts, const ReadyExpert& ready,
             std::set<uint32_t>& seen) {
    CHECK_EQUAL(ready.id.layer, layer);
    CHECK_EQUAL(experts[ready.position], ready.id.expert);
    CHECK(seen.insert(ready.id.expert).second);
    for (size_t matrix = 0; matrix < kNumExpertMatrices; ++matrix) {
      const uint64_t offset = offset_of(layer, ready.id.expert, matrix);
      CHECK(std::memcmp(ready.matrices[matrix].data, temporary_.data() + offset, kMatrixBytes) ==
            0);
    }
  }

  TemporaryFile temporary_;
  std::string backend_;
  std::vector<File> files_;
  std::unique_ptr<ExpertStore> store_;
};

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5, 6, 7};
const std::set<uint32_t> kAllSet(kAll.begin(), kAll.end());

std::vector<ExpertDemand> all_demands() {
  std::vector<ExpertDemand> demands;
  for (const uint32_t expert : kAll) demands.push_back({expert, 1.0f});
  return demands;
}

TEST("a layout gives each matrix its place, and windows of a slot do not overlap") {
  for (const uint64_t alignment : {1u, 512u, 4096u, 16384u, 65536u}) {
    const ExpertLayout layout(tensors(), kExperts, alignment);
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t expert = 0; expert < kExperts; ++expert) {
        const ExpertPlace& place = layout.place(layer, expert);
        CHECK_EQUAL(place.num_ranges, layer == 1 ? 2u : 3u);
        CHECK_EQUAL(place.weight_bytes, 3 * kMatrixBytes);
        uint64_t end = 0;
        for (uint32_t i = 0; i < place.num_ranges; ++i) {
          const ExpertRange& range = place.ranges[i];
          CHECK(range.slot_offset >= end);
          CHECK_EQUAL(range.slot_offset % alignment, 0u);
          end = range.slot_offset + window_bytes(range.offset, range.bytes, alignment);
        }
        CHECK(end <= place.slot_bytes);
        CHECK(place.slot_bytes <= layout.max_slot_bytes());
      }
    }
    CHECK_EQUAL(layout.total_weight_bytes(), kLayers * kExperts * 3 * kMatrixBytes);
  }
}

TEST("ranges of an expert come in the order of use, whatever order the file has") {
  std::vector<std::vector<ExpertTensor>> layers = tensors();
  for (std::vector<ExpertTensor>& layer : layers) std::reverse(layer.begin(), layer.end());
  const ExpertLayout layout(layers, kExperts, 4096);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const ExpertPlace& place = layout.place(layer, 3);
    CHECK_EQUAL(place.ranges[0].offset, offset_of(layer, 3, 0));
    CHECK_EQUAL(place.ranges[place.num_ranges - 1].offset, offset_of(layer, 3, 2));
  }
}

TEST("experts arrive with the bytes of the file, from every kind of device") {
  for (const std::string backend :
       {"auto", "pread", "buffered", "simulated:seed=2,reorder=1,short=0.4,eintr=0.2,eagain=0.1",
        "simulated:seed=3,latency=200,reorder=1", "simulated:seed=6,align=16384,short=0.2",
        "simulated:seed=7,align=65536,short=0.2"}) {
    for (const double slots : {2.0, 3.5, 100.0}) {
      Fixture fixture(backend, slots);
      for (int round = 0; round < 3; ++round) {
        for (uint32_t layer = 0; layer < kLayers; ++layer) {
          CHECK(fixture.run(layer, kAll) == kAllSet);
          CHECK(fixture.run(layer, {1, 6}) == (std::set<uint32_t>{1, 6}));
        }
      }
    }
  }
}

TEST("resident experts are hits and are not read again") {
  Fixture fixture("simulated:seed=1");
  fixture.run(0, kAll);
  const ExpertStats before = fixture.store().stats();
  CHECK_EQUAL(before.hits, 0u);
  fixture.run(0, kAll);
  const ExpertStats after = fixture.store().stats();
  CHECK_EQUAL(after.hits, 8u);
  CHECK_EQUAL(after.demands, 16u);
  CHECK_EQUAL(after.bytes_read, before.bytes_read);
  CHECK_EQUAL(fixture.store().layer_stats(0).hits, 8u);
  CHECK_EQUAL(fixture.store().layer_stats(1).demands, 0u);
}

TEST("a pool that changes its size between requests hands out the bytes of the file") {
  for (const std::string backend : {"auto", "buffered", "simulated:seed=4,latency=200,reorder=1"}) {
    Fixture fixture(backend, 6);
    ExpertStore& store = fixture.store();
    const uint64_t slot = store.layout().max_slot_bytes();
    CHECK(store.max_pool_bytes() >= store.layout().total_slot_bytes());
    std::mt19937 random(5);
    for (int round = 0; round < 60; ++round) {
      const auto layer = static_cast<uint32_t>(random() % kLayers);
      CHECK(fixture.run(layer, kAll) == kAllSet);
      {
        auto dropped = store.request((layer + 1) % kLayers, std::vector<ExpertDemand>{{2, 1.0f}});
      }
      store.set_pool_bytes(random() % (30 * slot));
      CHECK(store.cache().used_bytes() <= store.cache().pool_bytes());
      CHECK(store.cache().pool_bytes() >= ExpertStore::min_pool_bytes(store.layout()));
    }
    store.set_pool_bytes(100 * slot);
    for (uint32_t layer = 0; layer < kLayers; ++layer) fixture.run(layer, kAll);
    const ExpertStats before = store.stats();
    for (uint32_t layer = 0; layer < kLayers; ++layer) fixture.run(layer, kAll);
    CHECK_EQUAL(store.stats().hits - before.hits, uint64_t{kLayers} * kExperts);
  }
}

TEST("the mark of a regrouped expert lasts until its slot is read again") {
  Fixture fixture("simulated:seed=1", 2);
  const std::vector<ExpertDemand> demand = {{3, 1.0f}};
  const auto is_regrouped = [&] {
    auto request = fixture.store().request(0, demand);
    const bool regrouped = request.next(Wait::kAtLeastOne)[0].regrouped;
    fixture.store().mark_regrouped({0, 3});
    return regrouped;
  };
  CHECK(!is_regrouped());
  CHECK(is_regrouped());
  fixture.run(1, kAll);  // takes every slot
  CHECK(!is_regrouped());
}

TEST("a failed read fails the request by name and the store stays usable") {
  for (const double slots : {2.0, 100.0}) {
    Fixture fixture("simulated:eio_after=10,eio_count=20", slots);
    int errors = 0;
    for (int attempt = 0; attempt < 60 && errors < 60; ++attempt) {
      try {
        CHECK(fixture.run(2, kAll) == kAllSet);
      } catch (const Error& error) {
        ++errors;
        CHECK(error.code() == ErrorCode::kIo);
        CHECK(std::string(error.what()).find("layer 2") != std::string::npos);
      }
    }
    CHECK(errors > 0);
    CHECK(errors < 30);
    CHECK(fixture.run(2, kAll) == kAllSet);
  }
}

TEST("a request that is dropped leaves its reads to finish into the cache") {
  for (const double slots : {2.0, 4.0, 100.0}) {
    Fixture fixture("simulated:seed=5,latency=300,reorder=1", slots);
    for (int round = 0; round < 5; ++round) {
      {
        const std::vector<ExpertDemand> demands = all_demands();
        auto request = fixture.store().request(static_cast<uint32_t>(round) % kLayers, demands);
        if (round % 2 == 1) request.next(Wait::kAtLeastOne);
      }
      CHECK(fixture.run(1, kAll) == kAllSet);
    }
  }
}

TEST("what is guessed before any request is read, and a demand finds it") {
  Fixture fixture("simulated:seed=4");
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kDecode);
  store.guess(0, ReadAhead::kToken, std::vector<uint32_t>{3, 77});  // there is no expert 77
  store.read_ahead();
  CHECK(store.stats().ahead_bytes > 0);
  CHECK(fixture.run(0, {3}) == std::set<uint32_t>{3});
  const ExpertStats stats = store.stats();
  CHECK_EQUAL(stats.useful_bytes, stats.ahead_bytes);
}

TEST("what an earlier run used most is read without a request, as far as the pool goes") {
  Sections learned;
  {
    Fixture fixture("auto");
    for (int step = 0; step < 4; ++step) {
      fixture.run(0, {1, 4});
      fixture.run(2, {7});
    }
    fixture.run(1, kAll);
    learned = fixture.store().learned();
  }
  for (const double slots : {3.0, 100.0}) {
    Fixture fixture("auto", slots);
    ExpertStore& store = fixture.store();
    store.learn(learned);
    while (store.warm_up()) {
    }
    // No token needed them.
    CHECK(store.stats(Phase::kLoading).bytes_read > 0);
    CHECK_EQUAL(store.stats(Phase::kLoading).bytes_read, store.read_stats().bytes);
    CHECK_EQUAL(store.stats().bytes_read, 0u);
    for (const ExpertId id : {ExpertId{0, 1}, ExpertId{0, 4}, ExpertId{2, 7}}) {
      CHECK(store.cache().state(id) == ExpertCache::State::kResident);
    }
    CHECK_EQUAL(store.cache().num_resident(), slots < 4 ? 3u : 11u);
    CHECK_EQUAL(store.stats().demands, 0u);
    CHECK(fixture.run(0, {1, 4}) == (std::set<uint32_t>{1, 4}));
    CHECK_EQUAL(store.stats().hits, 2u);
  }
  Fixture fixture("auto");
  for (auto& [name, bytes] : learned) bytes.resize(bytes.size() / 2);
  fixture.store().learn(learned);
  CHECK(!fixture.store().warm_up());
}

TEST("a read ahead that fails is nobody's error until its expert is asked for") {
  Fixture fixture("simulated:eio_after=0,eio_count=6");
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kDecode);
  store.guess(0, 1, std::vector<uint32_t>{3});
  store.read_ahead();
  for (int i = 0; i < 10; ++i) store.read_ahead();
  const ExpertStats stats = store.stats();
  CHECK(stats.ahead_bytes > 0);
  CHECK_EQUAL(stats.wasted_bytes, stats.ahead_bytes);
  CHECK(fixture.run(0, {3}) == std::set<uint32_t>{3});
}

TEST("a demand adopts a read ahead that is on its way") {
  Fixture fixture("simulated:latency=3000,serial=1");
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kDecode);
  store.guess(0, 1, std::vector<uint32_t>{3, 5});
  store.read_ahead();
  CHECK(store.cache().state({0, 5}) == ExpertCache::State::kLoading);
  CHECK(fixture.run(0, {3, 5}) == (std::set<uint32_t>{3, 5}));
  const ExpertStats stats = store.stats();
  CHECK_EQUAL(stats.useful_bytes, stats.ahead_bytes);
  CHECK_EQUAL(store.read_stats().reads, 6u);  // three matrices of each, once
}

// Pumps until the device has nothing to do.
void pump_until_idle(ExpertStore& store) {
  for (uint64_t before = store.read_stats().reads, quiet = 0; quiet < 50;) {
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    store.pump();
    const uint64_t now = store.read_stats().reads;
    quiet = now == before ? quiet + 1 : 0;
    before = now;
  }
}

TEST("demands go to the device a few at a time, and a pump keeps it busy meanwhile") {
  ExpertStoreOptions options;
  options.in_flight_bytes = 1;
  Fixture fixture("simulated:latency=1000,serial=1", 100, options);
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kDecode);
  const std::vector<ExpertDemand> demands = all_demands();
  auto request = store.request(0, demands);
  size_t on_their_way = 0;
  for (const uint32_t expert : kAll) {
    on_their_way += store.cache().state({0, expert}) != ExpertCache::State::kAbsent;
  }
  CHECK_EQUAL(on_their_way, 1u);
  pump_until_idle(store);
  CHECK_EQUAL(request.next(Wait::kNo).size(), kAll.size());
}

TEST("what is there is handed out at once while demands are held back") {
  ExpertStoreOptions options;
  options.in_flight_bytes = 1;
  Fixture fixture("simulated:latency=2000,serial=1", 100, options);
  fixture.run(0, {0, 1, 2, 3});
  ExpertStore& store = fixture.store();
  const std::vector<ExpertDemand> demands = all_demands();
  auto request = store.request(0, demands);
  CHECK_EQUAL(request.next(Wait::kNo).size(), 4u);
}

TEST("a pump reads no more ahead than a part of the pool while nothing is taken") {
  ExpertStoreOptions options;
  options.preload = PreloadPolicy::kAlways;
  Fixture fixture("simulated:latency=100", 8, options);
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kPrefill);
  const std::vector<ExpertDemand> demands = all_demands();
  auto request = store.request(0, std::span(demands).first(1));
  store.guess(1, ReadAhead::kBatch, kAll);
  request.next(Wait::kAtLeastOne);
  pump_until_idle(store);
  CHECK(store.stats().ahead_bytes > 0);
  CHECK(store.stats().ahead_bytes <= store.cache().pool_bytes() * 3 / 8);
  CHECK_EQUAL(store.stats().wasted_bytes, 0u);
}

TEST("an error that a pump finds is left to the next call that may fail") {
  Fixture fixture("simulated:eio_after=4,eio_count=40");
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kDecode);
  {
    const std::vector<ExpertDemand> demands = all_demands();
    auto request = store.request(2, demands);
    pump_until_idle(store);
    const std::string message = ERROR_MESSAGE(ErrorCode::kIo, request.next(Wait::kNo));
    CHECK(message.find("layer 2") != std::string::npos);
  }
  pump_until_idle(store);
  for (int attempt = 0; attempt < 20; ++attempt) {
    try {
      CHECK(fixture.run(2, kAll) == kAllSet);
      return;
    } catch (const Error&) {
      // The device still fails.
    }
  }
  CHECK(false);
}

ExpertStoreOptions keeping_nothing() {
  ExpertStoreOptions options;
  options.keep = false;
  options.preload = PreloadPolicy::kAlways;
  return options;
}

TEST("a store that keeps nothing reads at every use, in waves where the pool is small") {
  for (const double slots : {2.0, 3.5, 100.0}) {
    Fixture fixture("simulated:seed=4,latency=100,reorder=1", slots, keeping_nothing());
    for (int round = 0; round < 2; ++round) {
      CHECK(fixture.run(0, kAll) == kAllSet);
      CHECK(fixture.run(0, {2, 5}) == (std::set<uint32_t>{2, 5}));
    }
    const ExpertStats stats = fixture.store().stats();
    CHECK_EQUAL(stats.hits, 0u);
    CHECK_EQUAL(stats.evictions, 20u);
    CHECK_EQUAL(fixture.store().cache().used_bytes(), 0u);
  }
}

TEST("a store that keeps nothing uses what was read ahead, and drops what was read in vain") {
  Fixture fixture("simulated:seed=4", 100, keeping_nothing());
  ExpertStore& store = fixture.store();
  store.begin_step(Phase::kDecode);
  {
    const std::vector<ExpertDemand> demand = {{0, 1.0f}};
    auto request = store.request(0, demand);
    store.guess(1, 1, std::vector<uint32_t>{3, 4});
    while (!request.next(Wait::kAtLeastOne).empty()) {
    }
  }
  {
    const std::vector<ExpertDemand> demand = {{4, 1.0f}};
    auto request = store.request(1, demand);
    while (!request.next(Wait::kAtLeastOne).empty()) {
    }
  }
  fixture.run(2, kAll);  // takes the arrivals of what was still under way
  const ExpertStats stats = store.stats();
  CHECK_EQUAL(stats.ahead_bytes, stats.useful_bytes + stats.wasted_bytes);
  CHECK_EQUAL(stats.useful_bytes, stats.wasted_bytes);
  CHECK_EQUAL(store.cache().used_bytes(), 0u);
}

TEST("a store that keeps nothing drops the reads of a request that was dropped") {
  Fixture fixture("simulated:seed=5,latency=300,reorder=1", 100, keeping_nothing());
  std::vector<ExpertDemand> demands;
  for (const uint32_t expert : kAll) demands.push_back({expert, 1.0f});
  {
    auto request = fixture.store().request(0, demands);
  }
  for (int round = 0; round < 5; ++round) CHECK(fixture.run(1, kAll) == kAllSet);
  CHECK_EQUAL(fixture.store().cache().used_bytes(), 0u);
}

TEST("a pool below two experts is refused with the size that would do") {
  const std::string message = ERROR_MESSAGE(ErrorCode::kBudget, Fixture("pread", 1.9));
  CHECK(message.find("two experts") != std::string::npos);
}

}  // namespace
}  // namespace edgemoe
