#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include "base/error.h"
#include "base/units.h"

namespace edgemoe {

AlignedBuffer::AlignedBuffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    throw Error(ErrorCode::kBudget, "the system refused " + format_bytes(bytes) +
                                        " of memory; give a smaller --memory");
  }
  data_ = static_cast<std::byte*>(pages);
  // Weights are read from end to end: large pages save most misses of the address cache. A system
  // without them refuses the advice, which changes nothing.
  constexpr size_t kWorthLargePages = 8 * kMiB;
  if (bytes >= kWorthLargePages) madvise(pages, bytes, MADV_HUGEPAGE);
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace edgemoe
