#include "io/uring_reader.h"

#include "base/error.h"

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace edgemoe {
namespace {

#ifndef IORING_SETUP_CLAMP
#define IORING_SETUP_CLAMP (1U << 4)
#endif

int setup_ring(uint32_t entries, io_uring_params& parameters) noexcept {
  return static_cast<int>(::syscall(__NR_io_uring_setup, entries, &parameters));
}

int enter_ring(int ring, uint32_t to_submit, uint32_t least_complete, uint32_t flags) noexcept {
  return static_cast<int>(
      ::syscall(__NR_io_uring_enter, ring, to_submit, least_complete, flags, nullptr, 0));
}

// The heads and tails are shared with the kernel.
uint32_t load_acquire(const uint32_t* place) noexcept {
  return __atomic_load_n(place, __ATOMIC_ACQUIRE);
}
void store_release(uint32_t* place, uint32_t value) noexcept {
  __atomic_store_n(place, value, __ATOMIC_RELEASE);
}

// Memory that the kernel maps for us.
class Mapping {
 public:
  Mapping() = default;
  Mapping(int descriptor, size_t bytes, uint64_t offset) : bytes_(bytes) {
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                        descriptor, static_cast<off_t>(offset));
    if (data == MAP_FAILED) {
      throw Error(ErrorCode::kUnsupported, "io_uring: mapping a ring failed: " + errno_text(errno));
    }
    data_ = static_cast<std::byte*>(data);
  }
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  uint32_t* word(uint32_t offset) const noexcept {
    return reinterpret_cast<uint32_t*>(data_ + offset);
  }
  template <class T>
  T* as(uint32_t offset) const noexcept {
    return reinterpret_cast<T*>(data_ + offset);
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const noexcept { return value_; }

 private:
  int value_;
};

class UringReader final : public AsyncReader {
 public:
  UringReader(int ring, const io_uring_params& parameters, size_t depth)
      : ring_(ring), depth_(depth) {
    const size_t submission_bytes =
        parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
    const size_t completion_bytes =
        parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe);
    const bool one_mapping = (parameters.features & IORING_FEAT_SINGLE_MMAP) != 0;
    submission_ring_ =
        Mapping(ring, one_mapping ? std::max(submission_bytes, completion_bytes) : submission_bytes,
                IORING_OFF_SQ_RING);
    if (!one_mapping) completion_ring_ = Mapping(ring, completion_bytes, IORING_OFF_CQ_RING);
    entries_ = Mapping(ring, parameters.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);

    const Mapping& completion = one_mapping ? submission_ring_ : completion_ring_;
    submission_tail_ = submission_ring_.word(parameters.sq_off.tail);
    submission_mask_ = *submission_ring_.word(parameters.sq_off.ring_mask);
    submission_array_ = submission_ring_.word(parameters.sq_off.array);
    completion_head_ = completion.word(parameters.cq_off.head);
    completion_tail_ = completion.word(parameters.cq_off.tail);
    completion_mask_ = *completion.word(parameters.cq_off.ring_mask);
    completions_ = completion.as<io_uring_cqe>(parameters.cq_off.cqes);
  }

  // Reads in flight write to memory of the caller: wait for them.
  ~UringReader() override {
    std::vector<ReadResult> results(depth_);
    while (outstanding_ > 0 && drain(results, Wait::kAtLeastOne) > 0) {
    }
  }

  std::string_view name() const noexcept override { return "uring"; }
  size_t depth() const noexcept override { return depth_; }
  size_t outstanding() const noexcept override { return outstanding_; }

  size_t submit(std::span<const ReadRequest> requests) noexcept override {
    // Never more than the completion queue holds, so that it cannot overflow.
    const size_t count = std::min(requests.size(), depth_ - outstanding_);
    uint32_t tail = *submission_tail_;
    for (const ReadRequest& request : requests.first(count)) {
      const uint32_t index = tail & submission_mask_;
      fill_entry(request, entries_.as<io_uring_sqe>(0)[index]);
      submission_array_[index] = index;
      ++tail;
    }
    store_release(submission_tail_, tail);
    outstanding_ += count;
    unsubmitted_ += static_cast<uint32_t>(count);
    hand_over(0, 0);
    return count;
  }

  size_t drain(std::span<ReadResult> results, Wait wait) noexcept override {
    size_t count = take(results);
    while (count == 0 && wait == Wait::kAtLeastOne && outstanding_ > 0) {
      hand_over(1, IORING_ENTER_GETEVENTS);
      count = take(results);
    }
    if (count == 0 && unsubmitted_ > 0) hand_over(0, 0);
    return count;
  }

 private:
  static void fill_entry(const ReadRequest& request, io_uring_sqe& entry) noexcept {
    std::memset(&entry, 0, sizeof entry);
    entry.opcode = IORING_OP_READ;
    entry.fd = request.file->descriptor();
    entry.off = request.offset;
    entry.addr = reinterpret_cast<uintptr_t>(request.destination);
    entry.len = request.bytes;
    entry.user_data = request.tag;
  }

  // Gives prepared entries to the kernel. What it does not take now (EAGAIN, EBUSY: no memory, or
  // completions must be taken first; EINTR) is handed over by the next call.
  void hand_over(uint32_t least_complete, uint32_t flags) noexcept {
    if (unsubmitted_ == 0 && least_complete == 0) return;
    const int taken = enter_ring(ring_.value(), unsubmitted_, least_complete, flags);
    if (taken > 0) unsubmitted_ -= std::min(unsubmitted_, static_cast<uint32_t>(taken));
  }

  size_t take(std::span<ReadResult> results) noexcept {
    uint32_t head = *completion_head_;
    const uint32_t tail = load_acquire(completion_tail_);
    size_t count = 0;
    while (count < results.size() && head != tail) {
      const io_uring_cqe& entry = completions_[head & completion_mask_];
      results[count++] = {entry.user_data, entry.res};
      ++head;
    }
    store_release(completion_head_, head);
    outstanding_ -= count;
    return count;
  }

  Descriptor ring_;
  size_t depth_;
  size_t outstanding_ = 0;
  uint32_t unsubmitted_ = 0;
  Mapping submission_ring_;
  Mapping completion_ring_;
  Mapping entries_;
  uint32_t* submission_tail_ = nullptr;
  uint32_t submission_mask_ = 0;
  uint32_t* submission_array_ = nullptr;
  uint32_t* completion_head_ = nullptr;
  uint32_t* completion_tail_ = nullptr;
  uint32_t completion_mask_ = 0;
  io_uring_cqe* completions_ = nullptr;
};

}  // namespace

std::unique_ptr<AsyncReader> make_uring_reader(size_t depth) {
  io_uring_params parameters;
  std::memset(&parameters, 0, sizeof parameters);
  parameters.flags = IORING_SETUP_CLAMP;
  const auto entries = static_cast<uint32_t>(std::bit_ceil(depth));
  const int ring = setup_ring(entries, parameters);  // closed on exec by the kernel's default
  if (ring < 0) {
    throw Error(ErrorCode::kUnsupported,
                "io_uring: the kernel refuses a ring: " + errno_text(errno));
  }
  const size_t room = std::min(depth, size_t{parameters.sq_entries});
  return std::make_unique<UringReader>(ring, parameters, room);
}

}  // namespace edgemoe

#else

namespace edgemoe {

std::unique_ptr<AsyncReader> make_uring_reader(size_t) {
  throw Error(ErrorCode::kUnsupported, "io_uring: this build was made without its kernel header");
}

}  // namespace edgemoe

#endif
