// One open file for reading. Positioned reads only; safe for concurrent use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace edgemoe {

enum class FileAccess {
  kDirect,    // past the page cache; falls back to kBuffered where the file system refuses
  kBuffered,  // through the page cache, told that access is random
};

class File {
 public:
  // Opens a regular file; direct reads get at least that alignment, a power of two.
  // Errors: kIo naming the path (missing, directory, permission).
  File(std::string path, FileAccess access, size_t least_alignment = 1);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const noexcept { return path_; }
  uint64_t size() const noexcept { return size_; }
  int descriptor() const noexcept { return descriptor_; }
  // What was obtained: a direct open that a real aligned read disproved reports kBuffered.
  FileAccess access() const noexcept { return access_; }
  // Offsets, lengths and memory of direct reads are multiples of this power of two (asked from the
  // system, never assumed); 1 for buffered access.
  size_t alignment() const noexcept { return alignment_; }
  // Of the device that holds it (st_dev): the same number for all files there.
  uint64_t device() const noexcept { return device_; }

  // Reads exactly `out.size()` bytes at `offset` whatever the alignment, through a bounce buffer
  // where direct access needs one; resumes after EINTR and short reads.
  // Errors: kIo with path, offset and cause, also when the file ends early.
  void read_exact(uint64_t offset, std::span<std::byte> out) const;
  // The same without an allocation: `bounce` is aligned memory of bounce_bytes(out.size()) or more.
  // Smaller memory is used again and again; the least is two alignments.
  void read_exact(uint64_t offset, std::span<std::byte> out, std::span<std::byte> bounce) const;
  // Bounce memory with which `bytes` take one read; 0 for buffered access.
  size_t bounce_bytes(size_t bytes) const noexcept;

 private:
  std::string path_;
  uint64_t size_ = 0;
  int descriptor_ = -1;
  FileAccess access_ = FileAccess::kBuffered;
  size_t alignment_ = 1;
  uint64_t device_ = 0;
};

}  // namespace edgemoe
