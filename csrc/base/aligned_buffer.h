// The only allocator of large memory: anonymous pages, aligned for direct I/O, returned on
// destruction. Owners report `bytes()` to the memory plan.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace edgemoe {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zero-filled pages, not yet backed by memory. Errors: kBudget when the system refuses.
  explicit AlignedBuffer(size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~AlignedBuffer();

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  size_t bytes() const noexcept { return bytes_; }
  std::span<std::byte> span() noexcept { return {data_, bytes_}; }

  // The memory as an array of T. Requires: T is trivial.
  template <class T>
  T* as() noexcept {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace edgemoe
