// Memory between two pages that must not be touched: one byte read or written past its end, or
// before its start, ends the test program. What is shorter than the memory lies at one of the
// sides.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <vector>

namespace edgemoe::test {

// The guard that memory touches. At the start it is aligned to a page, at the end to nothing.
enum class Side { kEnd, kStart };
inline constexpr Side kSides[] = {Side::kEnd, Side::kStart};

class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t capacity) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    // A page for nothing too: opening none is refused by qemu.
    usable_ = std::max((capacity + page - 1) / page * page, page);
    mapped_ = page + usable_ + page;
    void* memory = ::mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("cannot map a guarded buffer");
    start_ = static_cast<std::byte*>(memory) + page;
    if (::mprotect(start_, usable_, PROT_READ | PROT_WRITE) != 0) {
      ::munmap(memory, mapped_);
      throw std::runtime_error("cannot open the pages between the guards");
    }
  }
  ~GuardedBuffer() { ::munmap(start_ - (mapped_ - usable_) / 2, mapped_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  // The last `bytes` bytes, or those that end `slack` bytes before the guard.
  // Requires: bytes + slack is at most the capacity.
  std::byte* last(size_t bytes, size_t slack = 0) const { return start_ + usable_ - slack - bytes; }
  // `bytes` bytes that touch that guard. Requires: bytes is at most the capacity.
  std::byte* at(Side side, size_t bytes) const { return side == Side::kEnd ? last(bytes) : start_; }

  template <class T>
  T* array_at(Side side, size_t count) const {
    return reinterpret_cast<T*>(at(side, count * sizeof(T)));
  }

 private:
  std::byte* start_ = nullptr;
  size_t usable_ = 0;
  size_t mapped_ = 0;
};

// A copy of floats that touches a guard.
class GuardedFloats {
 public:
  GuardedFloats(const std::vector<float>& values, Side side)
      : memory_(values.size() * sizeof(float)),
        size_(values.size()),
        data_(memory_.array_at<float>(side, size_)) {
    std::copy(values.begin(), values.end(), data_);
  }
  float* data() const { return data_; }
  std::vector<float> values() const { return {data_, data_ + size_}; }

 private:
  GuardedBuffer memory_;
  size_t size_;
  float* data_;
};

}  // namespace edgemoe::test
