#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/units.h"
#include "io/async_reader.h"
#include "io/pread_reader.h"
#include "io/simulated_reader.h"
#include "io/uring_permission.h"
#include "io/uring_reader.h"

namespace edgemoe {
namespace {

constexpr std::string_view kSimulated = "simulated:";
constexpr size_t kMaxDepth = 4096;

// Reads the front of the file through io_uring and compares; a ring that can be made may still
// refuse every read (seccomp, old kernels). Returns the reason, empty when it works.
std::string try_uring(const File& file) noexcept {
  try {
    if (std::string refusal = uring_refusal(); !refusal.empty()) return refusal;
    const uint64_t bytes = std::min<uint64_t>(align_up(file.size(), file.alignment()), 64 * kKiB);
    AlignedBuffer through_ring(64 * kKiB);
    AlignedBuffer plain(64 * kKiB);
    const auto ring = make_uring_reader(2);
    const ReadRequest request{&file, 0, static_cast<uint32_t>(bytes), through_ring.data(), 1};
    if (ring->submit({&request, 1}) != 1) return "the probe could not be submitted";
    ReadResult result;
    if (ring->drain({&result, 1}, Wait::kAtLeastOne) != 1) return "the probe did not finish";
    if (result.outcome < 0) return errno_text(static_cast<int>(-result.outcome));
    const uint64_t expected = std::min(bytes, file.size());
    if (static_cast<uint64_t>(result.outcome) < expected) return "the probe came back short";
    file.read_exact(0, plain.span().first(expected));
    const bool same = std::memcmp(through_ring.data(), plain.data(), expected) == 0;
    return same ? "" : "the probe brought wrong bytes";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

std::string uring_unavailable_reason(const File& probe_file) {
  static std::mutex mutex;
  static std::optional<std::string> outcome;  // latched: one probe decides for the process
  const std::lock_guard lock(mutex);
  if (!outcome) outcome = try_uring(probe_file);
  return *outcome;
}

FileAccess access_for_backend(std::string_view backend) {
  if (backend == "buffered") return FileAccess::kBuffered;
  const bool known = backend == "auto" || backend == "uring" || backend == "pread" ||
                     backend.starts_with(kSimulated);
  if (known) return FileAccess::kDirect;
  throw Error(ErrorCode::kArgument, "unknown io backend '" + std::string(backend) +
                                        "'; known: auto, uring, pread, buffered");
}

File open_for_backend(const std::string& path, std::string_view backend) {
  const FileAccess access = access_for_backend(backend);
  if (!backend.starts_with(kSimulated)) return File(path, access);
  return File(path, access, parse_simulated_device(backend.substr(kSimulated.size())).alignment);
}

std::unique_ptr<AsyncReader> make_reader(const ReaderOptions& options, const File& probe_file) {
  access_for_backend(options.backend);  // refuses unknown names
  const size_t depth = std::clamp<size_t>(options.depth, 1, kMaxDepth);
  const size_t threads = std::clamp<size_t>(options.num_threads, 1, depth);
  if (options.backend.starts_with(kSimulated)) {
    const auto device =
        parse_simulated_device(std::string_view(options.backend).substr(kSimulated.size()));
    return make_simulated_reader(device, depth);
  }
  if (options.backend == "buffered") return make_pread_reader("buffered", depth, threads);
  if (options.backend != "pread") {
    const std::string reason = uring_unavailable_reason(probe_file);
    if (reason.empty()) return make_uring_reader(depth);
    if (options.backend == "uring") {
      throw Error(ErrorCode::kUnsupported,
                  "io_uring does not work here (" + reason + "); use --io pread");
    }
  }
  return make_pread_reader("pread", depth, threads);
}

}  // namespace edgemoe
