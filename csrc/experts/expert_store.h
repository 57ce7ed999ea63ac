// Experts on demand: joins the layout, the cache and the read queue. One owner thread.
//
// A request names the experts that one layer needs now. Resident ones are handed out first, then
// those whose reads have finished; a pool too small for all of them works in waves, because handing
// out the next experts gives up those before. The caller takes every expert or drops the request.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "experts/expert_cache.h"
#include "io/read_queue.h"
#include "weights/expert_layout.h"
#include "weights/matrix.h"

namespace edgemoe {

struct ExpertStoreOptions {
  uint64_t pool_bytes = 0;  // at least min_pool_bytes(layout)
  EvictionPolicy eviction = EvictionPolicy::kLayerAware;
};

struct ExpertStats {
  uint64_t demands = 0;  // experts asked for by layers
  uint64_t hits = 0;     // of those, resident when asked
  uint64_t evictions = 0;
  uint64_t bytes_read = 0;  // by expert reads, aligned windows included
  uint64_t stall_ns = 0;    // time spent waiting for storage
};

struct LayerStats {
  uint64_t demands = 0;
  uint64_t hits = 0;
};

// What a layer asks for: an expert, and the share of the step's tokens that use it.
struct ExpertDemand {
  uint32_t expert = 0;
  float share = 1.0f;
};

// An expert in memory. Valid until the next call of next() or the end of the request.
struct ReadyExpert {
  uint32_t position = 0;  // index into the request's list
  ExpertId id;
  std::array<MatrixView, kNumExpertMatrices> matrices;  // empty views where absent
  // False on the first use after a read: the bytes are still in GGUF layout. The user regroups
  // the matrices in place (quant/layout.h) and calls ExpertStore::mark_regrouped.
  bool regrouped = false;
};

class ExpertStore {
 public:
  // `files` are the model's shards, opened for the reader's access; borrowed.
  // Errors: kBudget when pool_bytes < min_pool_bytes(layout).
  ExpertStore(ExpertLayout layout, std::span<const File> files, std::unique_ptr<AsyncReader> reader,
              const ExpertStoreOptions& options);
  ~ExpertStore();

  // Two of the largest slots: one computes while the next is read.
  static uint64_t min_pool_bytes(const ExpertLayout& layout) noexcept;

  void begin_step() noexcept;  // once per forward pass

 private:
  struct Impl;

 public:
  class Request {
   public:
    Request(Request&&) noexcept;
    Request& operator=(Request&&) = delete;
    // Gives up what it holds; reads in flight finish into the cache.
    ~Request();
    // The experts that are there and were not handed out before. With kAtLeastOne it sleeps until
    // there is one, and none means that all were handed out.
    // Errors: kIo naming layer, expert, file and cause; the store stays usable.
    std::span<const ReadyExpert> next(Wait wait);

   private:
    friend class ExpertStore;
    explicit Request(Impl* store) noexcept : store_(store) {}
    Impl* store_;  // null after a move
  };

  // The experts are distinct and in rising order, which is file order. Never waits. At most one
  // request is alive.
  Request request(uint32_t layer, std::span<const ExpertDemand> demands);
  void mark_regrouped(ExpertId id) noexcept;

  ExpertStats stats() const noexcept;
  const ReadStats& read_stats() const noexcept;
  // Demands, hits and bytes of one layer since the store was made.
  LayerStats layer_stats(uint32_t layer) const noexcept;
  const ExpertLayout& layout() const noexcept;
  const ExpertCache& cache() const noexcept;
  std::string_view backend() const noexcept;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemoe
