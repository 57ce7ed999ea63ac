// The store with experts of several sizes that come with one read, or with one for gate and up and
// one for down.
#include <cstring>
#include <random>
#include <set>

#include "base/fast_hash.h"
#include "base/units.h"
#include "experts/expert_store.h"
#include "temporary_file.h"
#include "test.h"

namespace edgemoe {
namespace {

using test::TemporaryFile;

constexpr uint32_t kLayers = 2;
constexpr uint32_t kExperts = 12;
constexpr uint32_t kSide = 256;  // rows and columns
constexpr QuantType kTypes[] = {QuantType::kF32, QuantType::kF16, QuantType::kQ8_0,
                                QuantType::kQ4_0};

QuantType type_of(uint32_t layer, uint32_t expert, size_t matrix) {
  return kTypes[(layer + expert + 3 * matrix) % std::size(kTypes)];
}
uint64_t bytes_of(uint32_t layer, uint32_t expert, size_t matrix) {
  return kSide * row_bytes(type_of(layer, expert, matrix), kSide);
}

// As a packed container has them: one expert after another, matrices padded to pages.
std::vector<std::vector<ExpertTensor>> packed_tensors() {
  std::vector<std::vector<ExpertTensor>> layers(kLayers);
  uint64_t offset = 4096;
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    layers[layer].resize(kNumExpertMatrices);
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      for (size_t matrix = 0; matrix < kNumExpertMatrices; ++matrix) {
        ExpertTensor& tensor = layers[layer][matrix];
        tensor.matrix = static_cast<ExpertMatrix>(matrix);
        tensor.rows = tensor.columns = kSide;
        tensor.types.push_back(type_of(layer, expert, matrix));
        tensor.shards.push_back(0);
        tensor.offsets.push_back(offset);
        offset += align_up(bytes_of(layer, expert, matrix), 4096);
      }
    }
  }
  return layers;
}

uint64_t file_bytes() {
  const auto layers = packed_tensors();
  return layers[kLayers - 1][2].offsets[kExperts - 1] + bytes_of(kLayers - 1, kExperts - 1, 2);
}

class PackedFixture {
 public:
  explicit PackedFixture(const std::string& backend, double slots = 100, bool verified = false)
      : temporary_(file_bytes()), tensors_(packed_tensors()) {
    files_.emplace_back(temporary_.path(), access_for_backend(backend));
    ExpertLayout layout(tensors_, kExperts, files_[0].alignment(), true);
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t expert = 0; expert < kExperts; ++expert) {
        FastHash hash;
        for (size_t i = 0; i < kNumExpertMatrices; ++i) hash.add(matrix(layer, expert, i));
        checksums_.push_back(hash.value());
      }
    }
    ExpertStoreOptions options;
    options.pool_bytes =
        static_cast<uint64_t>(slots * static_cast<double>(layout.max_slot_bytes())) / 4096 * 4096;
    if (verified) options.checksums = checksums_;
    ReaderOptions reader;
    reader.backend = backend;
    store_ = std::make_unique<ExpertStore>(std::move(layout), files_,
                                           make_reader(reader, files_[0]), options);
  }
  ExpertStore& store() { return *store_; }
  std::vector<uint64_t>& checksums() { return checksums_; }
  size_t num_parts() const { return num_parts_; }

  // Takes every expert of a request and compares its bytes with the file's; returns the experts.
  std::set<uint32_t> run(uint32_t layer, const std::vector<uint32_t>& experts,
                         Phase phase = Phase::kDecode) {
    std::vector<ExpertDemand> demands;
    for (const uint32_t expert : experts) demands.push_back({expert, 1.0f});
    std::set<uint32_t> seen;
    std::set<uint32_t> lack_down;
    store_->begin_step(phase);
    auto request = store_->request(layer, demands);
    for (auto ready = request.next(Wait::kNo);;) {
      for (const ReadyExpert& expert : ready) {
        CHECK_EQUAL(expert.id.layer, layer);
        CHECK_EQUAL(experts[expert.position], expert.id.expert);
        check(expert, lack_down, seen);
      }
      ready = request.next(Wait::kAtLeastOne);
      if (ready.empty()) break;
    }
    CHECK(lack_down.empty());
    return seen;
  }

 private:
  std::span<const std::byte> matrix(uint32_t layer, uint32_t expert, size_t which) const {
    return {temporary_.data() + tensors_[layer][which].offsets[expert],
            bytes_of(layer, expert, which)};
  }

  void check(const ReadyExpert& ready, std::set<uint32_t>& lack_down, std::set<uint32_t>& seen) {
    CHECK(ready.regrouped);
    const bool lacks_down = ready.part == ExpertPart::kHidden;
    if (lacks_down) {
      CHECK(lack_down.insert(ready.id.expert).second);
      ++num_parts_;
    } else {
      CHECK_EQUAL(lack_down.erase(ready.id.expert), ready.part == ExpertPart::kDown ? 1u : 0u);
      CHECK(seen.insert(ready.id.expert).second);
    }
    for (size_t i = 0; i < kNumExpertMatrices - (lacks_down ? 1 : 0); ++i) {
      const auto expected = matrix(ready.id.layer, ready.id.expert, i);
      CHECK(ready.matrices[i].type == type_of(ready.id.layer, ready.id.expert, i));
      CHECK(std::memcmp(ready.matrices[i].data, expected.data(), expected.size()) == 0);
    }
  }

  TemporaryFile temporary_;
  std::vector<std::vector<ExpertTensor>> tensors_;
  std::vector<uint64_t> checksums_;
  std::vector<File> files_;
  std::unique_ptr<ExpertStore> store_;
  size_t num_parts_ = 0;
};

const std::vector<uint32_t> kAll = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
const std::set<uint32_t> kAllSet(kAll.begin(), kAll.end());
const std::set<uint32_t> kSome = {2, 3, 5};

TEST("packed experts of several sizes arrive with the bytes of the file, from every device") {
  for (const std::string backend :
       {"auto", "pread", "buffered", "simulated:seed=2,reorder=1,short=0.4,eintr=0.2,eagain=0.1",
        "simulated:seed=3,latency=200,reorder=1", "simulated:seed=3,latency=50,serial=1"}) {
    for (const double slots : {2.0, 2.6, 5.0, 100.0}) {
      PackedFixture fixture(backend, slots);
      for (int round = 0; round < 2; ++round) {
        for (uint32_t layer = 0; layer < kLayers; ++layer) {
          CHECK(fixture.run(layer, kAll, Phase::kPrefill) == kAllSet);
          CHECK(fixture.run(layer, kAll) == kAllSet);
          CHECK(fixture.run(layer, {2, 3, 5}) == kSome);
        }
      }
    }
  }
}

TEST("a packed expert is one read ahead and at most two on demand") {
  PackedFixture fixture("simulated:seed=1");
  ExpertStore& store = fixture.store();
  fixture.run(0, kAll, Phase::kPrefill);
  CHECK_EQUAL(store.read_stats().reads, 12u);
  fixture.run(1, kAll);
  CHECK_EQUAL(store.read_stats().reads, 12u + 12u + 9u);  // down in Q4_0 is too small for its own
}

TEST("gate and up come before down where down is late, and down follows") {
  // Longer than a busy machine takes to copy a matrix.
  PackedFixture fixture("simulated:seed=7,latency=4000,serial=1", 4);
  for (int round = 0; round < 2; ++round) {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      CHECK(fixture.run(layer, kAll) == kAllSet);
    }
  }
  CHECK(fixture.num_parts() > 4);
  const size_t parts = fixture.num_parts();
  fixture.run(0, kAll, Phase::kPrefill);
  CHECK_EQUAL(fixture.num_parts(), parts);
}

TEST("an expert of which a part was used and that was given up arrives whole for others") {
  PackedFixture fixture("simulated:seed=8,latency=4000,serial=1");
  ExpertStore& store = fixture.store();
  size_t given_up = 0;
  for (int round = 0; round < 8; ++round) {
    const uint32_t layer = static_cast<uint32_t>(round) % kLayers;
    store.set_pool_bytes(0);  // nothing but two experts stays
    store.set_pool_bytes(store.max_pool_bytes());
    {
      store.begin_step(Phase::kDecode);
      const std::vector<ExpertDemand> demands = {{2, 1.0f}, {3, 1.0f}, {5, 1.0f}};
      auto request = store.request(layer, demands);
      for (const ReadyExpert& ready : request.next(Wait::kAtLeastOne)) {
        given_up += ready.part == ExpertPart::kHidden;
      }
    }
    if (round % 4 == 3) store.set_pool_bytes(store.max_pool_bytes());  // waits for what is read
    CHECK(fixture.run(layer, {2, 3, 5}, round % 3 == 0 ? Phase::kPrefill : Phase::kDecode) ==
          kSome);
  }
  CHECK(given_up > 0);
}

TEST("an expert whose down cannot be read fails the request, and the store stays usable") {
  for (const double slots : {2.0, 100.0}) {
    PackedFixture fixture("simulated:eio_after=11,eio_count=20,latency=100,serial=1", slots);
    int errors = 0;
    for (int attempt = 0; attempt < 60 && errors < 60; ++attempt) {
      try {
        CHECK(fixture.run(1, kAll) == kAllSet);
      } catch (const Error& error) {
        ++errors;
        CHECK(error.code() == ErrorCode::kIo);
        CHECK(std::string(error.what()).find("layer 1") != std::string::npos);
      }
    }
    CHECK(errors > 0);
    CHECK(errors < 30);
    CHECK(fixture.run(1, kAll) == kAllSet);
  }
}

TEST("what is compared with a checksum comes whole, and a difference fails by name") {
  PackedFixture fixture("simulated:seed=7,latency=100,serial=1", 4, true);
  for (uint32_t layer = 0; layer < kLayers; ++layer) CHECK(fixture.run(layer, kAll) == kAllSet);
  CHECK_EQUAL(fixture.num_parts(), 0u);
  fixture.checksums()[kExperts + 7] ^= 1;
  fixture.run(0, kAll);  // takes the slots of layer 1
  for (int attempt = 0; attempt < 2; ++attempt) {
    const std::string message = ERROR_MESSAGE(ErrorCode::kFormat, fixture.run(1, {3, 7}));
    CHECK(message.find("expert 7 of layer 1") != std::string::npos);
    CHECK(fixture.run(1, {2, 3, 5}) == kSome);
  }
}

TEST("a pool with several sizes that changes between requests hands out the bytes of the file") {
  PackedFixture fixture("simulated:seed=4,latency=50,reorder=1", 20);
  ExpertStore& store = fixture.store();
  std::mt19937 random(5);
  for (int round = 0; round < 40; ++round) {
    const auto layer = static_cast<uint32_t>(random() % kLayers);
    store.begin_step(Phase::kDecode);
    store.guess(1 - layer, 1, std::vector<uint32_t>{1, 4, 9});
    store.read_ahead();
    CHECK(fixture.run(layer, kAll) == kAllSet);
    store.set_pool_bytes(random() % store.max_pool_bytes());
    CHECK(store.cache().used_bytes() <= store.cache().pool_bytes());
  }
}

}  // namespace
}  // namespace edgemoe
