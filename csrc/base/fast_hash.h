// A 64-bit checksum that runs at memory speed on one core: XXH64 (seed 0), a published algorithm.
// It finds damage, it does not stop forgers. Input words are read as little-endian, so the value of
// given bytes is the same on every machine and does not depend on how they were cut into pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace edgemoe {

class FastHash {
 public:
  void add(std::span<const std::byte> bytes) noexcept;
  // Of all bytes added so far; more may be added afterwards.
  uint64_t value() const noexcept;

 private:
  static constexpr size_t kStripeBytes = 32;
  static constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
  static constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;

  // Four lanes, each takes eight bytes of every stripe.
  uint64_t lanes_[4] = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
  uint64_t num_bytes_ = 0;
  std::byte rest_[kStripeBytes] = {};  // num_bytes_ % kStripeBytes of them wait for a whole stripe
};

uint64_t fast_hash(std::span<const std::byte> bytes) noexcept;

}  // namespace edgemoe
