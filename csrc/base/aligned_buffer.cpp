#include "base/aligned_buffer.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>

#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

// Weights are read from end to end: large pages save most misses of the address cache. A system
// without them refuses the advice, which changes nothing.
constexpr size_t kWorthLargePages = 8 * kMiB;
constexpr size_t kLargePageBytes = 2 * kMiB;

size_t page_bytes() noexcept {
  return static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Pages from a multiple of `alignment` on, which the system's own need not be: what is mapped too
// much goes back. Null when the system refuses.
std::byte* map_aligned(size_t bytes, size_t alignment, int flags) noexcept {
  const size_t mapped = align_up(bytes, page_bytes());
  const size_t spare = alignment - std::min(page_bytes(), alignment);
  void* pages = mmap(nullptr, mapped + spare, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(pages);
  const size_t lead = align_up(address, alignment) - address;
  auto* first = static_cast<std::byte*>(pages) + lead;
  if (lead > 0) munmap(pages, lead);
  if (spare > lead) munmap(first + mapped, spare - lead);
  return first;
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes, Promise promise) : bytes_(bytes) {
  if (bytes == 0) return;
  const int uncounted = promise == Promise::kNotNeeded ? MAP_NORESERVE : 0;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | uncounted;
  const bool large = bytes >= kWorthLargePages;
  std::byte* pages = map_aligned(bytes, large ? kLargePageBytes : kAlignment, flags);
  if (pages == nullptr) {
    throw Error(ErrorCode::kBudget, "the system refused " + format_bytes(bytes) +
                                        " of memory; give a smaller --memory");
  }
  data_ = pages;
  if (large) madvise(pages, bytes, MADV_HUGEPAGE);
}

bool AlignedBuffer::addresses_are_free() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return false;
  std::ifstream file("/proc/sys/vm/overcommit_memory");
  int mode = 0;
  constexpr int kNeverOvercommit = 2;
  return !(file >> mode) || mode != kNeverOvercommit;
}

void AlignedBuffer::limit_to(size_t bytes) noexcept {
  if (data_ == nullptr) return;
  const size_t kept = align_up(bytes, page_bytes());
  if (bytes_ >= kWorthLargePages) {
    // A large page must not reach over the limit, neither at a first touch nor when the system puts
    // small ones together later.
    const auto address = reinterpret_cast<uintptr_t>(data_);
    const size_t lead = align_up(address, kLargePageBytes) - address;
    const size_t small_from =
        kept < lead ? 0 : std::min(bytes_, lead + align_down(kept - lead, kLargePageBytes));
    if (small_from > 0) madvise(data_, small_from, MADV_HUGEPAGE);
    if (small_from < bytes_) madvise(data_ + small_from, bytes_ - small_from, MADV_NOHUGEPAGE);
  }
  if (kept < bytes_) madvise(data_ + kept, bytes_ - kept, MADV_DONTNEED);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace edgemoe
