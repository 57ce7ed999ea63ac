#include "io/file_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

// Of memory, offsets and lengths of direct writes; a device that wants more is written through the
// page cache.
constexpr size_t kAlignment = 4096;
constexpr mode_t kMode = 0666;  // the caller's umask takes from it

}  // namespace

FileWriter::FileWriter(std::string path) : path_(std::move(path)), buffer_(kBufferBytes) {
  do {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kMode);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail("cannot be written", errno);
  struct stat status;
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw Error(ErrorCode::kIo, path_ + ": is not a regular file");
  }
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::fail(const std::string& what, int error_number) const {
  std::string advice;
  if (error_number == ENOSPC || error_number == EDQUOT) {
    advice = "; make room there and run the same command again, it goes on where it stopped";
  } else if (error_number == EFBIG) {
    advice = "; files of this size are not allowed there, see ulimit -f";
  }
  throw Error(ErrorCode::kIo, path_ + ": " + what + ": " + errno_text(error_number) + advice);
}

uint64_t FileWriter::size() const {
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) fail("cannot be examined", errno);
  return static_cast<uint64_t>(status.st_size);
}

void FileWriter::reserve(uint64_t bytes) {
  const uint64_t before = size();
  if (bytes <= before) return;
  int error = 0;
  do {
    error = ::posix_fallocate(descriptor_, static_cast<off_t>(before),
                              static_cast<off_t>(bytes - before));
  } while (error == EINTR);
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL) return;
  // What was taken before the room ran out is given back; the file is as it was.
  if (::ftruncate(descriptor_, static_cast<off_t>(before)) != 0) error = errno;
  fail("no room for the " + std::to_string(bytes) + " bytes that it takes", error);
}

void FileWriter::set_direct(bool direct) noexcept {
  const int flags = ::fcntl(descriptor_, F_GETFL);
  const int wanted = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
  direct_ = ::fcntl(descriptor_, F_SETFL, wanted) == 0 && direct;
}

void FileWriter::start(uint64_t offset) {
  set_direct(false);
  begin_ = align_down(offset, kAlignment);
  filled_ = 0;
  while (position() < offset) {
    const ssize_t count = ::pread(descriptor_, buffer_.data() + filled_, offset - position(),
                                  static_cast<off_t>(position()));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot be read at offset " + std::to_string(position()), errno);
    if (count == 0) break;
    filled_ += static_cast<size_t>(count);
  }
  pad_to(offset);  // past the end of the file
  set_direct(true);
}

void FileWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kPieceBytes - filled_);
    std::memcpy(buffer_.data() + filled_, bytes.data(), count);
    filled_ += count;
    bytes = bytes.subspan(count);
    if (filled_ == kPieceBytes) write_buffer(kPieceBytes);
  }
}

void FileWriter::pad_to(uint64_t offset) {
  EM_CHECK(offset >= position());
  while (position() < offset) {
    const size_t count = std::min<uint64_t>(offset - position(), kPieceBytes - filled_);
    std::memset(buffer_.data() + filled_, 0, count);
    filled_ += count;
    if (filled_ == kPieceBytes) write_buffer(kPieceBytes);
  }
}

void FileWriter::write_buffer(size_t bytes) {
  write_whole(begin_, {buffer_.data(), bytes});
  begin_ += bytes;
  filled_ = 0;
}

void FileWriter::write_whole(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t begin = offset;
  const size_t length = bytes.size();
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    const bool odd = count > 0 && static_cast<size_t>(count) % kAlignment != 0;
    const bool refused = (count < 0 && errno == EINVAL) || odd;
    if (direct_ && refused) {
      set_direct(false);
      if (count < 0) continue;
    }
    if (count < 0) fail("writing at offset " + std::to_string(offset) + " failed", errno);
    if (count == 0) fail("writing at offset " + std::to_string(offset) + " failed", ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  if (direct_) return;
  // Dirty pages must not pile up: they count in the memory of a control group.
  ::sync_file_range(
      descriptor_, static_cast<off_t>(begin), static_cast<off_t>(length),
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  ::posix_fadvise(descriptor_, static_cast<off_t>(begin), static_cast<off_t>(length),
                  POSIX_FADV_DONTNEED);
}

void FileWriter::end() {
  const uint64_t size = position();
  const size_t whole = align_up(filled_, kAlignment);
  std::memset(buffer_.data() + filled_, 0, whole - filled_);
  write_whole(begin_, {buffer_.data(), whole});
  begin_ = size;
  filled_ = 0;
  set_direct(false);
  resize(size);
}

void FileWriter::resize(uint64_t bytes) {
  int done = -1;
  do {
    done = ::ftruncate(descriptor_, static_cast<off_t>(bytes));
  } while (done != 0 && errno == EINTR);
  if (done != 0) fail("cannot be made " + std::to_string(bytes) + " bytes long", errno);
}

void FileWriter::overwrite(uint64_t offset, std::span<const std::byte> bytes) {
  EM_CHECK(!direct_);
  write_whole(offset, bytes);
}

void FileWriter::sync() {
  int done = -1;
  do {
    done = ::fsync(descriptor_);
  } while (done != 0 && errno == EINTR);
  if (done != 0) fail("cannot be brought to the device", errno);
}

void sync_folder_of(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    throw Error(ErrorCode::kIo, folder + ": cannot be opened: " + errno_text(errno));
  }
  const int done = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (done == 0 || error == EINVAL) return;  // file systems without folders to sync
  throw Error(ErrorCode::kIo, folder + ": cannot be brought to the device: " + errno_text(error));
}

}  // namespace edgemoe
