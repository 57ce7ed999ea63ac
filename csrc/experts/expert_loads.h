// Slots, the reads that fill them, and what is counted of both; the part of the expert store that
// knows nothing of requests.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "experts/expert_cache.h"
#include "experts/expert_store.h"
#include "io/read_queue.h"
#include "weights/expert_layout.h"

namespace edgemoe {

// A load on its way, and what the slot holds afterwards.
struct ExpertLoad {
  uint8_t num_reads = 0;
  uint8_t reads_left = 0;
  bool cut = false;           // down is a read of its own
  bool down_arrived = false;  // of a cut one
  bool split = false;         // gate and up were handed out to the living request, down is to come
  bool wanted = false;        // by the living request; else it finishes into the cache
  bool ahead = false;         // nobody has asked for it yet
  bool hottest = false;       // read because earlier runs used it, and nobody has asked for it yet
  bool regrouped = false;
  bool damaged = false;  // it arrived, and its checksum differs; error is EBADMSG
  int error = 0;
  uint32_t failed_range = 0;
};

struct ExpertLoads {
  ExpertLoads(ExpertLayout expert_layout, std::span<const File> model_files,
              std::unique_ptr<AsyncReader> reader, const ExpertStoreOptions& options);

  ExpertLayout layout;
  std::span<const File> files;
  AlignedBuffer pool;
  ExpertCache cache;
  bool keep;  // see ExpertStoreOptions
  std::span<const uint64_t> checksums;
  std::span<const uint64_t> low_checksums;
  std::vector<ExpertLoad> loads;  // by layer, then number
  uint64_t in_flight = 0;         // bytes of slots that reads under way will fill
  uint64_t ahead_in_flight = 0;   // of those, of experts that nobody has asked for
  Phase phase = Phase::kLoading;
  std::array<ExpertStats, kNumPhases> phases;
  uint64_t counted_busy_ns = 0;  // what the phases know of
  uint64_t counted_evictions = 0;
  ReadQueue queue;  // last: its destructor waits for reads into the pool

  ExpertLoad& load_of(ExpertId id) noexcept {
    return loads[size_t{id.layer} * layout.numbers_per_layer() + id.expert];
  }
  ExpertStats& stats() noexcept { return phases[static_cast<size_t>(phase)]; }
  uint64_t slot_bytes(ExpertId id) const noexcept {
    return layout.place(id.layer, id.expert).slot_bytes;
  }

  bool lacks_down_only(ExpertId id) noexcept;

  // Reserves a slot for an absent expert and submits its reads, for a request (`wanted`) or ahead
  // of one. False when there is no room. Its low copy, which is not used beside it, makes way.
  bool start(ExpertId id, bool wanted);

  void drop_low_copy(ExpertId id) noexcept;
  bool should_cut(const ExpertPlace& place, bool wanted) const noexcept;
  // Submits the read of bytes [begin, end) of the file, which belong to the range.
  void submit(const ExpertRange& range, uint64_t begin, uint64_t end, std::byte* slot,
              uint64_t tag);
  // Whether the slot holds the bytes of the expert's checksum.
  bool is_sound(ExpertId id) const noexcept;

  // A load that ended with this read, in success or failure.
  struct Ended {
    ExpertId id;
    bool was_wanted = false;
    int error = 0;  // the slot is free again; failed_range of the load says which range
  };
  // Empty while other reads of the expert are under way. A load that is wanted stays pinned.
  std::optional<Ended> finish(const CompletedRead& read);

  // Gives up a pin; what is not kept leaves with it.
  void release(ExpertId id) noexcept;
  // What was read ahead for a layer and not asked for; reads under way end in release.
  void drop_unused(uint32_t layer) noexcept;

  // An expert that was read ahead has found its use, or its end.
  void count_ahead(ExpertId id, uint64_t& bytes) noexcept;
  // Gives the time of reads and the evictions since the last call to the running phase.
  void count_reads() noexcept;
  // What was read ahead and evicted before anyone asked.
  void count_evicted_ahead() noexcept;

  [[noreturn]] void fail(ExpertId id, int error);
};

}  // namespace edgemoe
