// Memory that ends at a page which must not be touched: one byte read or written past the end ends
// the test program.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <stdexcept>

namespace edgemoe::test {

class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t capacity) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    usable_ = (capacity + page - 1) / page * page;
    mapped_ = usable_ + page;
    void* memory =
        ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("cannot map a guarded buffer");
    start_ = static_cast<std::byte*>(memory);
    if (::mprotect(start_ + usable_, page, PROT_NONE) != 0) {
      ::munmap(start_, mapped_);
      throw std::runtime_error("cannot protect a guard page");
    }
  }
  ~GuardedBuffer() { ::munmap(start_, mapped_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  // The last `bytes` bytes, or those that end `slack` bytes before the guard.
  // Requires: bytes + slack is at most the capacity.
  std::byte* last(size_t bytes, size_t slack = 0) const { return start_ + usable_ - slack - bytes; }

  template <class T>
  T* last_of(size_t count) const {
    return reinterpret_cast<T*>(last(count * sizeof(T)));
  }

 private:
  std::byte* start_ = nullptr;
  size_t usable_ = 0;
  size_t mapped_ = 0;
};

}  // namespace edgemoe::test
