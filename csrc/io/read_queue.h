// Complete reads on top of an AsyncReader: queues beyond its depth, resumes short reads from the
// last aligned byte, retries EINTR, EAGAIN and EBUSY, gives EIO one more chance, and reports each
// range once, whole or failed. One owner thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/async_reader.h"

namespace edgemoe {

// A range to read in full. The memory holds the enclosing aligned window: byte `offset` of the file
// arrives at destination + offset % file.alignment().
struct ReadRange {
  const File* file = nullptr;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::byte* destination = nullptr;  // aligned; window_bytes(...) long
  uint64_t tag = 0;
};

// Bytes of the aligned window around [offset, offset + bytes).
inline uint64_t window_bytes(uint64_t offset, uint64_t bytes, uint64_t alignment) noexcept {
  const uint64_t begin = offset & ~(alignment - 1);
  const uint64_t end = (offset + bytes + alignment - 1) & ~(alignment - 1);
  return end - begin;
}

struct CompletedRead {
  uint64_t tag = 0;
  int error = 0;       // 0, or the errno that remained; ENODATA when the file ended early
  uint64_t bytes = 0;  // that were read for it, aligned windows included
};

struct ReadStats {
  uint64_t reads = 0;  // requests that reached the device
  uint64_t bytes = 0;  // bytes that they brought
  uint64_t retries = 0;
  uint64_t errors = 0;   // ranges that failed
  uint64_t busy_ns = 0;  // time with reads outstanding, until their end was noticed
};

class ReadQueue {
 public:
  explicit ReadQueue(std::unique_ptr<AsyncReader> reader);
  // Waits for what is in flight, so that no read lands in freed memory.
  ~ReadQueue();

  // Queues the range (cut into pieces of at most kMaxReadBytes) and submits what fits.
  void submit(const ReadRange& range);
  // The next finished range; with kAtLeastOne it sleeps until there is one. Empty when nothing is
  // finished (kNo) or nothing is outstanding.
  std::optional<CompletedRead> next(Wait wait);
  size_t outstanding_ranges() const noexcept;
  const ReadStats& stats() const noexcept;
  std::string_view backend() const noexcept;

  static constexpr uint64_t kMaxReadBytes = 4u << 20;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace edgemoe
