#include "bitwidth/pack_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/fast_hash.h"

namespace edgemoe {
namespace {

constexpr uint64_t kMagic = 0x3150'4B43'4150'4D45;  // "EMPACKP1"
constexpr uint64_t kSeal = UINT64_MAX;

struct Header {
  uint64_t magic = kMagic;
  uint64_t key = 0;
};

// As it lies in the file. The check finds records that were cut or never reached the device.
struct Entry {
  UnitRecord record;
  uint64_t check = 0;
};
static_assert(sizeof(Entry) == 8 * (2 + 2 * kNumExpertMatrices + 1));

uint64_t check_of(const UnitRecord& record) noexcept {
  return fast_hash(std::as_bytes(std::span(&record, 1)));
}

}  // namespace

PackJournal::PackJournal(std::string path, uint64_t key, bool resume) : path_(std::move(path)) {
  try {
    open();
    if (resume) read(key);
    if (records_.empty()) start(key);
  } catch (...) {
    if (descriptor_ >= 0) ::close(descriptor_);
    throw;
  }
}

PackJournal::~PackJournal() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void PackJournal::fail(const std::string& what, int error_number) const {
  throw Error(ErrorCode::kIo, path_ + ": " + what + ": " + errno_text(error_number));
}

// The lock is on the file that has the name: another run may have removed what was opened.
void PackJournal::open() {
  for (;;) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0 && errno == EINTR) continue;
    if (descriptor_ < 0) fail("cannot be written", errno);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        throw Error(ErrorCode::kIo, path_ + ": another edgemoe pack is writing this model now");
      }
      fail("cannot be locked", errno);
    }
    struct stat opened;
    struct stat named;
    const bool same = ::fstat(descriptor_, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 &&
                      opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
    if (same) return;
    ::close(descriptor_);
    descriptor_ = -1;
  }
}

void PackJournal::read(uint64_t key) {
  Header header;
  if (::pread(descriptor_, &header, sizeof header, 0) != sizeof header) return;
  if (header.magic != kMagic || header.key != key) return;
  Entry entry;
  off_t at = sizeof header;
  while (::pread(descriptor_, &entry, sizeof entry, at) == sizeof entry) {
    if (entry.check != check_of(entry.record)) break;
    if (entry.record.unit == kSeal) is_sealed_ = true;
    if (entry.record.unit != records_.size()) break;
    records_.push_back(entry.record);
    at += sizeof entry;
  }
  if (::lseek(descriptor_, at, SEEK_SET) != at) fail("cannot be read", errno);
}

void PackJournal::start(uint64_t key) {
  if (::ftruncate(descriptor_, 0) != 0 || ::lseek(descriptor_, 0, SEEK_SET) != 0) {
    fail("cannot be written", errno);
  }
  const Header header{kMagic, key};
  write(&header, sizeof header);
}

void PackJournal::keep(size_t count) {
  if (count == records_.size() && !is_sealed_) return;
  records_.resize(count);
  is_sealed_ = false;
  const auto end = static_cast<off_t>(sizeof(Header) + count * sizeof(Entry));
  if (::ftruncate(descriptor_, end) != 0 || ::lseek(descriptor_, end, SEEK_SET) != end) {
    fail("cannot be written", errno);
  }
}

void PackJournal::add(const UnitRecord& record) {
  EM_CHECK(record.unit == records_.size());
  const Entry entry{record, check_of(record)};
  write(&entry, sizeof entry);
  records_.push_back(record);
}

void PackJournal::seal() {
  if (is_sealed_) return;
  UnitRecord record;
  record.unit = kSeal;
  const Entry entry{record, check_of(record)};
  write(&entry, sizeof entry);
  if (::fsync(descriptor_) != 0) fail("cannot be brought to the device", errno);
  is_sealed_ = true;
}

void PackJournal::write(const void* data, size_t bytes) {
  ssize_t count = -1;
  do {
    count = ::write(descriptor_, data, bytes);
  } while (count < 0 && errno == EINTR);
  if (count < 0) fail("cannot be written", errno);
  if (static_cast<size_t>(count) != bytes) fail("cannot be written", ENOSPC);
}

void PackJournal::remove() noexcept {
  ::unlink(path_.c_str());
}

}  // namespace edgemoe
