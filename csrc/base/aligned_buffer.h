// The only allocator of large memory: anonymous pages, aligned for every direct I/O, returned on
// destruction. Owners report `bytes()` to the memory plan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace edgemoe {

class AlignedBuffer {
 public:
  // Of the first byte: the coarsest that direct I/O asks for.
  static constexpr size_t kAlignment = 65536;

  AlignedBuffer() = default;
  // Zero-filled pages, not yet backed by memory. Errors: kBudget when the system refuses.
  explicit AlignedBuffer(size_t bytes) : AlignedBuffer(bytes, Promise::kNeeded) {}
  // kNotNeeded: addresses only; the system does not say yet whether it has the memory.
  enum class Promise : uint8_t { kNeeded, kNotNeeded };
  AlignedBuffer(size_t bytes, Promise promise);
  // Whether addresses without a promise cost nothing: neither this process nor the system as a
  // whole has a limit that counts addresses.
  static bool addresses_are_free();
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

  // Gives the pages behind the first `bytes` back to the system: they read as zeros. What is backed
  // by memory then ends within a page of `bytes` as long as nothing behind is touched.
  void limit_to(size_t bytes) noexcept;

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
