#include "engine/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/units.h"
#include "engine/sample_product.h"
#include "io/device_probe.h"
#include "io/read_queue.h"
#include "quant/layout.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Sixteen independent sums let the loads overlap; the sum is used so that they happen.
uint64_t sum_of(const uint64_t* words, size_t count) noexcept {
  constexpr size_t kSums = 16;
  uint64_t sums[kSums] = {};
  for (size_t i = 0; i + kSums <= count; i += kSums) {
    for (size_t s = 0; s < kSums; ++s) sums[s] += words[i + s];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

// Bytes per second of sequential reads by all threads, each of its share.
double best_read_rate(ThreadPool& pool, std::span<const std::byte> memory, int passes) {
  const size_t share = align_down(memory.size() / pool.num_threads(), 4096);
  std::atomic<uint64_t> used{0};
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const Clock::time_point start = Clock::now();
    pool.parallel_for(pool.num_threads(), [&](size_t item, size_t) {
      const auto* words = reinterpret_cast<const uint64_t*>(memory.data() + item * share);
      used += sum_of(words, share / sizeof(uint64_t));
    });
    const auto bytes = static_cast<double>(share * pool.num_threads());
    best = std::max(best, bytes / seconds_since(start));
  }
  return best;
}

// One thread's matrix, activations and results, small enough for its own cache.
class MultiplyProbe {
 public:
  MultiplyProbe(QuantType type, uint64_t columns, uint32_t num_tokens)
      : weights_(kRows * row_bytes(type, columns)),
        product_(type, kRows, columns, num_tokens, weights_.data()) {
    std::memset(weights_.data(), 0x11, weights_.bytes());
  }

  const kernels::MatmulArgs& args() const noexcept { return product_.args(); }
  uint64_t weights() const noexcept { return kRows * args().columns * args().num_tokens; }

 private:
  static constexpr size_t kRows = 64;
  AlignedBuffer weights_;
  SampleProduct product_;
};

// Products per second of all threads, best of several passes. work(thread) does some and returns
// how many.
template <class Work>
double best_product_rate(ThreadPool& pool, const Work& work) {
  constexpr int kPasses = 5;
  constexpr double kPassSeconds = 0.02;
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<uint64_t> done{0};
    const Clock::time_point start = Clock::now();
    pool.parallel_for(pool.num_threads(), [&](size_t item, size_t) {
      do {
        done += work(item);
      } while (seconds_since(start) < kPassSeconds);
    });
    best = std::max(best, static_cast<double>(done) / seconds_since(start));
  }
  return best;
}

}  // namespace

double measure_read_bandwidth(ThreadPool& pool, uint64_t buffer_bytes) {
  constexpr int kPasses = 5;
  AlignedBuffer buffer(buffer_bytes);
  std::memset(buffer.data(), 1, buffer.bytes());
  return best_read_rate(pool, {buffer.data(), buffer.bytes()}, kPasses);
}

double measure_read_bandwidth(ThreadPool& pool, std::span<const std::byte> memory) {
  constexpr int kPasses = 2;
  return best_read_rate(pool, memory, kPasses);
}

double measure_multiply_rate(ThreadPool& pool, const kernels::KernelTable& table, QuantType type,
                             uint64_t columns, uint32_t num_tokens) {
  const kernels::MatmulFn multiply = kernels::product_of(table, type, num_tokens);
  std::vector<MultiplyProbe> probes;
  probes.reserve(pool.num_threads());
  for (size_t i = 0; i < pool.num_threads(); ++i) probes.emplace_back(type, columns, num_tokens);
  return best_product_rate(pool, [&](size_t thread) {
    multiply(probes[thread].args());
    return probes[thread].weights();
  });
}

double measure_multiply_peak(ThreadPool& pool, const kernels::KernelTable& table) {
  if (table.multiply_peak == nullptr) return 0;
  constexpr uint64_t kRounds = 4096;  // tens of microseconds: looking at the clock costs nothing
  return best_product_rate(pool, [&](size_t) { return table.multiply_peak(kRounds); });
}

uint64_t measurement_bytes(const MemoryPlan& plan) noexcept {
  // Larger than most last-level caches; a small budget gets a smaller one.
  const uint64_t left = plan.budget_bytes - std::min(plan.budget_bytes, plan.process_bytes);
  return std::clamp(left / 2, 4 * kMiB, 256 * kMiB);
}

namespace {

ExpertRange first_range(const ModelFile& file) {
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), kAssumedAlignment);
  uint32_t layer = 0;
  while (!layout.is_moe(layer)) ++layer;
  return layout.place(layer, 0).ranges[0];
}

}  // namespace

uint32_t expert_shard(const ModelFile& file) {
  return first_range(file).shard;
}

uint64_t expert_read_bytes(const ModelFile& file, const File& shard) {
  return std::min({align_up(first_range(file).bytes, shard.alignment()), ReadQueue::kMaxReadBytes,
                   shard.size()});
}

double measure_expert_reads(const ModelFile& file, const ReaderOptions& reader,
                            uint64_t memory_bytes, const ShouldStop& should_stop) {
  if (!file.spec().is_moe()) return 0;
  const File shard = open_for_backend(file.gguf().paths()[expert_shard(file)], reader.backend);
  DeviceProbe probe;
  probe.memory_bytes = memory_bytes;
  probe.read_bytes = expert_read_bytes(file, shard);
  probe.should_stop = should_stop;
  return measure_device(shard, reader, probe).bytes_per_second;
}

}  // namespace edgemoe
