// Experts on demand: joins the layout, the cache and the read queue. One owner thread.
//
// A request names the experts that one layer needs now. Resident ones are handed out first, then
// those whose reads have finished; a pool too small for all of them works in waves, because handing
// out the next experts gives up those before. The caller takes every expert or drops the request.
//
// What later layers will probably ask for is kept from eviction, and read early where that pays
// (read_ahead.h): only when no demand waits, never more in flight than the device profits from, and
// never in more than a part of the pool. A demand adopts a read that is on its way.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/section_file.h"
#include "experts/expert_cache.h"
#include "experts/read_ahead.h"
#include "io/read_queue.h"
#include "weights/expert_layout.h"
#include "weights/matrix.h"

namespace edgemoe {

struct ExpertStoreOptions {
  uint64_t pool_bytes = 0;       // at least min_pool_bytes(layout)
  uint64_t most_pool_bytes = 0;  // what it may grow to, where addresses cost nothing
  EvictionPolicy eviction = EvictionPolicy::kLayerAware;
  PreloadPolicy preload = PreloadPolicy::kAuto;
  bool auto_in_decode = true;  // kAuto tries reading ahead in decode too
  uint32_t num_used = 1;       // experts of a token
  // False: an expert leaves when its layer has used it, and what was read ahead in vain with it.
  // Half of the pool is then for the running layer, half for what is read ahead.
  bool keep = true;
  // fast_hash of every expert's matrices, layer-major, compared with what a read brought before
  // anyone gets it; empty: nothing is compared. Borrowed.
  std::span<const uint64_t> checksums;
  std::span<const uint64_t> low_checksums;  // likewise of low copies, where the layout has them
  // Bytes in flight from which the device gains no more; reading ahead stops there.
  uint64_t in_flight_bytes = 16u << 20;
};

// What the rows of a step are. Loading has none: experts that are read before anyone asks, all of
// them or those that earlier runs used most, which may still be under way during steps.
enum class Phase : uint8_t { kPrefill, kDecode, kLoading };
inline constexpr size_t kNumPhases = 3;

struct ExpertStats {
  uint64_t demands = 0;  // experts asked for by layers
  uint64_t hits = 0;     // of those, resident when asked
  uint64_t evictions = 0;
  uint64_t bytes_read = 0;    // by expert reads, aligned windows included
  uint64_t stall_ns = 0;      // time spent waiting for storage
  uint64_t busy_ns = 0;       // time with reads under way, until their end was noticed
  uint64_t ahead_bytes = 0;   // of slots that were read before their layer asked
  uint64_t useful_bytes = 0;  // of those, asked for while they were there
  uint64_t wasted_bytes = 0;  // evicted, or failed, before anyone asked
};

struct LayerStats {
  uint64_t demands = 0;
  uint64_t hits = 0;
};

// What a layer asks for: an expert, and the share of the step's tokens that use it.
struct ExpertDemand {
  uint32_t expert = 0;  // or the number of its low copy (ExpertLayout)
  float share = 1.0f;
};

// An expert may come in two parts, so that gate and up are used while down is being read: in
// decode, of a packed container, when nothing else is ready.
enum class ExpertPart : uint8_t {
  kWhole,
  kHidden,  // gate and up; down is on its way
  kDown,    // down, of an expert whose gate and up came before
};

// An expert in memory. Valid until the next call of next() or the end of the request; the views
// name the place of every matrix, its part says which may be read.
struct ReadyExpert {
  ExpertPart part = ExpertPart::kWhole;
  uint32_t position = 0;  // index into the request's list
  ExpertId id;            // the number that was asked for
  uint32_t expert = 0;    // that it stands for: its own, unless it is that of a low copy
  std::array<MatrixView, kNumExpertMatrices> matrices;  // empty views where absent
  // False on the first use after a read where the file has GGUF layout: the user regroups the
  // matrices in place (quant/layout.h) and calls ExpertStore::mark_regrouped.
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

  // Changes the bytes of the pool between two steps: reads under way are waited for, the least
  // valuable experts make way, and what is freed goes back to the system. Growing reads nothing.
  // Clamped to what min_pool_bytes and max_pool_bytes say. Errors are left to later demands.
  void set_pool_bytes(uint64_t bytes);
  // What the pool may grow to: most_pool_bytes, where the system let us map it.
  uint64_t max_pool_bytes() const noexcept;

  // Once per forward pass; end_step only when it was completed.
  void begin_step(Phase phase) noexcept;
  void end_step() noexcept;

 private:
  struct Impl;

 public:
  class Request {
   public:
    Request(Request&&) noexcept;
    Request& operator=(Request&&) = delete;
    // Gives up what it holds; reads in flight finish into the cache.
    ~Request();
    // The experts that are there and were not handed out before; where there are none, those of
    // which a part is there. With kAtLeastOne it sleeps until there is something, and nothing means
    // that all were handed out.
    // Errors: kIo, or kFormat for bytes that are not those of the checksum, naming layer, expert,
    // file and cause; the store stays usable.
    std::span<const ReadyExpert> next(Wait wait);

   private:
    friend class ExpertStore;
    explicit Request(Impl* store) noexcept : store_(store) {}
    Impl* store_;  // null after a move
  };

  // The numbers stand for distinct experts in rising order, which is file order but for low copies.
  // Never waits. At most one request is alive.
  Request request(uint32_t layer, std::span<const ExpertDemand> demands);
  void mark_regrouped(ExpertId id) noexcept;

  // What `layer` will probably ask for, most likely first, as that kind of guess (read_ahead.h).
  // Call it after the request of the running layer, so that its reads go first; reading ahead goes
  // on whenever next() is called, or read_ahead() where no request is alive.
  // Pointless where wants_guesses() is false: every expert fits, or reading ahead does not pay now.
  bool wants_guesses() const noexcept;
  void guess(uint32_t layer, uint32_t kind, std::span<const uint32_t> experts);
  void read_ahead();

  // Takes what has arrived and submits what is due, so that the device does not wait for the end of
  // a computation. Cheap; may be called at any time by the owner thread. Errors are left to next().
  void pump() noexcept;

  // What is worth keeping between runs: how often experts are used, how far guesses are trusted.
  Sections learned() const;
  // Takes up what an earlier run learned; sections that do not fit the model are ignored. The
  // experts used most, as many as the pool holds, are then read while nothing else is asked for, as
  // long as there is room: in steps, and by warm_up.
  void learn(const Sections& sections);
  // Reads some of them, sleeping until one has arrived; false when none are left to read. Not
  // during a request. Errors of reading are left to whoever asks for the expert.
  bool warm_up();

  ExpertStats stats() const noexcept;  // of prefill and decode
  ExpertStats stats(Phase phase) const noexcept;
  const ReadAheadStats& read_ahead_stats() const noexcept;
  const ReadStats& read_stats() const noexcept;
  // Demands and hits of one layer since the store was made.
  LayerStats layer_stats(uint32_t layer) const noexcept;
  const ExpertLayout& layout() const noexcept;
  const ExpertCache& cache() const noexcept;
  std::string_view backend() const noexcept;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgemoe
