// Reading the bytes of a block: unaligned, little-endian, no aliasing rules broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace edgemoe {

// The bytes of one block at a time.
class BlockBytes {
 public:
  explicit BlockBytes(const std::byte* block) noexcept : block_(block) {}

  uint8_t u8(size_t at) const noexcept { return static_cast<uint8_t>(block_[at]); }
  int8_t i8(size_t at) const noexcept { return static_cast<int8_t>(block_[at]); }
  uint16_t u16(size_t at) const noexcept { return read<uint16_t>(at); }
  uint32_t u32(size_t at) const noexcept { return read<uint32_t>(at); }
  float half(size_t at) const noexcept { return half_to_float(u16(at)); }

 private:
  template <class T>
  T read(size_t at) const noexcept {
    T value;
    std::memcpy(&value, block_ + at, sizeof value);
    return value;
  }
  const std::byte* block_;
};

}  // namespace edgemoe
