#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__GLIBC__) && __has_include(<linux/stat.h>)
#include <linux/stat.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

constexpr size_t kBounceBytes = 1u << 20;
constexpr size_t kLeastAlignment = 512;
constexpr size_t kCoarsestAlignment = AlignedBuffer::kAlignment;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kIo, path + ": " + what);
}

// O_NONBLOCK, so that opening a FIFO does not wait for a writer. It is taken off again: io_uring
// would answer EAGAIN instead of waiting for the device.
int open_for_reading(const std::string& path, int flags) noexcept {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor >= 0) ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) & ~O_NONBLOCK);
  return descriptor;
}

// One pread, repeated after EINTR.
ssize_t read_once(int descriptor, std::byte* out, size_t bytes, uint64_t offset) noexcept {
  ssize_t count = -1;
  do {
    count = ::pread(descriptor, out, bytes, static_cast<off_t>(offset));
  } while (count < 0 && errno == EINTR);
  return count;
}

// The alignment that the kernel states (statx, Linux 6.1), or 0. By system call: glibc has the
// function since 2.28.
size_t stated_alignment(int descriptor) noexcept {
#if defined(STATX_DIOALIGN) && defined(SYS_statx)
  struct statx status;
  std::memset(&status, 0, sizeof status);
  if (::syscall(SYS_statx, descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0) return 0;
  if ((status.stx_mask & STATX_DIOALIGN) == 0) return 0;
  const size_t alignment = std::max(status.stx_dio_mem_align, status.stx_dio_offset_align);
  return is_power_of_two(alignment) ? alignment : 0;
#else
  static_cast<void>(descriptor);
  return 0;
#endif
}

// The smallest alignment, `least` or more, with which a direct read really works, or 0: some file
// systems accept the flag and refuse the reads.
size_t working_alignment(int descriptor, size_t least) {
  AlignedBuffer probe(2 * kCoarsestAlignment);
  size_t alignment = std::max({kLeastAlignment, stated_alignment(descriptor), least});
  for (; alignment <= kCoarsestAlignment; alignment *= 2) {
    // Offset and memory are multiples of the alignment, and of nothing larger.
    if (read_once(descriptor, probe.data() + alignment, alignment, alignment) >= 0) {
      return alignment;
    }
    if (errno != EINVAL) return 0;
  }
  return 0;
}

}  // namespace

File::File(std::string path, FileAccess access, size_t least_alignment) : path_(std::move(path)) {
  if (path_.find('\0') != std::string::npos) fail(path_.c_str(), "the path contains a NUL");
  descriptor_ = open_for_reading(path_, 0);
  if (descriptor_ < 0) fail(path_, "cannot be opened: " + errno_text(errno));
  struct stat status;
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    const bool folder = known && S_ISDIR(status.st_mode);
    ::close(descriptor_);
    descriptor_ = -1;
    fail(path_, folder ? "is a directory; name the .gguf file in it" : "is not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
  device_ = static_cast<uint64_t>(status.st_dev);
  if (access == FileAccess::kDirect) {
    const int direct = open_for_reading(path_, O_DIRECT);
    const size_t alignment = direct < 0 ? 0 : working_alignment(direct, least_alignment);
    if (alignment != 0) {
      ::close(descriptor_);
      descriptor_ = direct;
      access_ = FileAccess::kDirect;
      alignment_ = alignment;
      return;
    }
    if (direct >= 0) ::close(direct);
  }
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      size_(other.size_),
      descriptor_(std::exchange(other.descriptor_, -1)),
      access_(other.access_),
      alignment_(other.alignment_),
      device_(other.device_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(access_, other.access_);
  std::swap(alignment_, other.alignment_);
  std::swap(device_, other.device_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

size_t File::bounce_bytes(size_t bytes) const noexcept {
  return alignment_ > 1 ? align_up(bytes + 2 * alignment_, alignment_) : 0;
}

void File::read_exact(uint64_t offset, std::span<std::byte> out) const {
  AlignedBuffer bounce;
  if (alignment_ > 1) bounce = AlignedBuffer(std::min(kBounceBytes, bounce_bytes(out.size())));
  read_exact(offset, out, bounce.span());
}

void File::read_exact(uint64_t offset, std::span<std::byte> out,
                      std::span<std::byte> bounce) const {
  if (offset > size_ || out.size() > size_ - offset) {
    fail(path_, "the file ends at " + std::to_string(size_) + "; " + std::to_string(out.size()) +
                    " bytes at offset " + std::to_string(offset) + " were asked for");
  }
  const bool direct = alignment_ > 1;
  EM_CHECK(!direct || bounce.size() >= 2 * alignment_);
  while (!out.empty()) {
    const uint64_t begin = align_down(offset, alignment_);
    const size_t skip = offset - begin;
    std::byte* memory = direct ? bounce.data() : out.data();
    const size_t wanted = direct ? std::min<size_t>(align_down(bounce.size(), alignment_),
                                                    align_up(skip + out.size(), alignment_))
                                 : out.size();
    const ssize_t count = read_once(descriptor_, memory, wanted, begin);
    if (count < 0) {
      fail(path_, "reading at offset " + std::to_string(offset) + " failed: " + errno_text(errno));
    }
    if (static_cast<size_t>(count) <= skip) {
      fail(path_, "the file ended early at offset " + std::to_string(offset) +
                      "; it was truncated after it was opened");
    }
    const size_t got = std::min(static_cast<size_t>(count) - skip, out.size());
    if (direct) std::memcpy(out.data(), memory + skip, got);
    out = out.subspan(got);
    offset += got;
  }
}

}  // namespace edgemoe
