#include "base/aligned_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/units.h"
#include "test.h"

namespace edgemoe {
namespace {

uint64_t resident_bytes(AlignedBuffer& buffer) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages(ceil_div(buffer.bytes(), page));
  REQUIRE(mincore(buffer.data(), buffer.bytes(), pages.data()) == 0);
  uint64_t resident = 0;
  for (const unsigned char one : pages) resident += (one & 1) * page;
  return resident;
}

TEST("what lies behind the limit of a buffer goes back to the system, to the page") {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const size_t bytes : {size_t{kMiB}, size_t{24 * kMiB}}) {
    AlignedBuffer buffer(bytes);
    std::memset(buffer.data(), 7, bytes);
    CHECK_EQUAL(resident_bytes(buffer), bytes);
    const size_t kept = bytes / 3 + 1;
    buffer.limit_to(kept);
    CHECK_EQUAL(resident_bytes(buffer), align_up(kept, page));
    CHECK(buffer.data()[kept - 1] == std::byte{7});
    CHECK(buffer.data()[bytes - 1] == std::byte{0});
  }
}

TEST("large pages do not reach over the limit of a buffer") {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  AlignedBuffer buffer(64 * kMiB, AlignedBuffer::Promise::kNotNeeded);
  for (const size_t kept : {5 * kMiB + 3, 40 * kMiB + 77, kMiB, 63 * kMiB}) {
    buffer.limit_to(kept);
    std::memset(buffer.data(), 7, kept);
    CHECK_EQUAL(resident_bytes(buffer), align_up(kept, page));
  }
}

}  // namespace
}  // namespace edgemoe
