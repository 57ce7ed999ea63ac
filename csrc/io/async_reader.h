// Asynchronous reads: submit requests, drain results later. One thread owns a reader.
//
// A reader reports what the system said and does not retry; ReadQueue (read_queue.h) does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"

namespace edgemoe {

// Requires (direct files): offset, bytes and destination are multiples of the file's alignment;
// the window may reach past the end of the file by less than one alignment.
struct ReadRequest {
  const File* file = nullptr;
  uint64_t offset = 0;
  uint32_t bytes = 0;
  std::byte* destination = nullptr;  // stays valid until the result was drained
  uint64_t tag = 0;                  // comes back with the result
};

struct ReadResult {
  uint64_t tag = 0;
  int64_t outcome = 0;  // bytes read (may be short), or -errno
};

enum class Wait { kNo, kAtLeastOne };

class AsyncReader {
 public:
  virtual ~AsyncReader() = default;
  virtual std::string_view name() const noexcept = 0;
  // Most requests that may be outstanding.
  virtual size_t depth() const noexcept = 0;
  virtual size_t outstanding() const noexcept = 0;
  // Takes requests in order while there is room; returns how many were taken.
  virtual size_t submit(std::span<const ReadRequest> requests) noexcept = 0;
  // Fills `results` with finished reads, in any order; returns how many. With kAtLeastOne it sleeps
  // until one is there (returns 0 only when nothing is outstanding).
  virtual size_t drain(std::span<ReadResult> results, Wait wait) noexcept = 0;
};

struct ReaderOptions {
  // "auto", "uring", "pread", "buffered" (pread pool over buffered files), or
  // "simulated:KEY=VALUE,..." (tests; see simulated_reader.h).
  std::string backend = "auto";
  size_t depth = 128;
  size_t num_threads = 8;  // of the pread pool
};

// How model files are to be opened for that backend: kBuffered for "buffered", else kDirect.
// Errors: kArgument for an unknown name, listing the known ones.
FileAccess access_for_backend(std::string_view backend);

// Opens a file for that backend; with the alignment that a simulated device asks for.
// Errors: as above and as File.
File open_for_backend(const std::string& path, std::string_view backend);

// Why io_uring cannot be used here; empty when it can. The first call probes with a real read of
// `probe_file`; its outcome holds for the process.
std::string uring_unavailable_reason(const File& probe_file);

// Makes the reader. "auto": io_uring when a probe that reads `probe_file` for real gives the bytes
// that pread gives, else the pread pool. "uring" raises
// kUnsupported with the cause where the probe fails.
std::unique_ptr<AsyncReader> make_reader(const ReaderOptions& options, const File& probe_file);

}  // namespace edgemoe
