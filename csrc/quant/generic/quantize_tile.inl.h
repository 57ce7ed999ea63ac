// A unit of 256 weights as the searches read it: column s of an array is sub-block s, so that lanes
// are sub-blocks; scaled by a power of two so that no square overflows.
#pragma once

#include "base/half.h"
#include "quant/generic/quantize_lanes.inl.h"
#include "quant/quantize_levels.h"

namespace edgemoe {
namespace {

inline float power_of_two(int exponent) noexcept {
  return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
}

// A scale as the file stores it, and what it is worth for the scaled weights of the tile.
struct HalfScale {
  uint16_t bits = 0;
  float value = 0.0f;
};

// kSubs sub-blocks of 256 / kSubs elements. Element e of sub-block s is at [e * kSubs + s].
template <size_t kSubs>
struct Tile {
  static constexpr size_t kElements = kUnitElements / kSubs;
  static_assert(kSubs % kLanes == 0);

  alignas(64) float weights[kUnitElements];
  alignas(64) float importance[kUnitElements];
  int exponent;  // weights are the row's / 2^exponent; the largest is from 1 to 4, or all are 0

  HalfScale half(float scale) const noexcept { return half_of_bits(half_bits(scale)); }
  // As half(), away from zero where codes up to `most` could not reach the magnitude `peak`.
  HalfScale half_that_reaches(float scale, float most, float peak) const noexcept {
    uint16_t bits = half_bits(scale);
    const float reached = half_of_bits(bits).value * (most + 0.5f);
    if ((reached < 0.0f ? -reached : reached) < peak && (bits & 0x7FFFu) < 0x7BFFu) ++bits;
    return half_of_bits(bits);
  }
  HalfScale half_of_bits(uint16_t bits) const noexcept {
    return {bits, half_to_float(bits) * power_of_two(-exponent)};
  }

 private:
  // Scales beyond the largest finite half are clamped.
  uint16_t half_bits(float scale) const noexcept {
    constexpr float kLargest = 65504.0f;
    const float real = scale * power_of_two(exponent);
    return float_to_half(real > kLargest ? kLargest : real < -kLargest ? -kLargest : real);
  }
};

inline uint32_t largest_magnitude_bits(const float* weights) noexcept {
  uint32_t largest[8] = {};
  for (size_t i = 0; i < kUnitElements; i += 8) {
    for (size_t l = 0; l < 8; ++l) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, weights[i + l]) & 0x7FFFFFFFu;
      largest[l] = largest[l] > bits ? largest[l] : bits;
    }
  }
  uint32_t most = 0;
  for (const uint32_t bits : largest) most = most > bits ? most : bits;
  return most;
}

template <size_t kSubs>
inline void fill_tile(const float* weights, const float* importance, Tile<kSubs>& tile) noexcept {
  constexpr size_t kElements = Tile<kSubs>::kElements;
  const int exponent = static_cast<int>(largest_magnitude_bits(weights) >> 23) - 127;
  // Below this even the smallest scale of a type is far too large.
  const bool all_zero = exponent < -100;
  tile.exponent = all_zero ? 0 : exponent > 126 ? 126 : exponent;
  const float factor = all_zero ? 0.0f : power_of_two(-tile.exponent);
  for (size_t e = 0; e < kElements; ++e) {
    for (size_t s = 0; s < kSubs; ++s) {
      tile.weights[e * kSubs + s] = weights[s * kElements + e] * factor;
      tile.importance[e * kSubs + s] = importance[s * kElements + e];
    }
  }
}

// Codes by sub-block, as the searches find them, to codes in the order of the row.
template <size_t kSubs>
inline void restore_order(const int8_t* by_sub, int8_t* by_row) noexcept {
  constexpr size_t kElements = kUnitElements / kSubs;
  for (size_t s = 0; s < kSubs; ++s) {
    for (size_t e = 0; e < kElements; ++e) by_row[s * kElements + e] = by_sub[e * kSubs + s];
  }
}

EDGEMOE_LANES void store_codes(Floats codes, int8_t* to) noexcept {
  const Integers whole = __builtin_convertvector(codes, Integers);
  for (size_t l = 0; l < kLanes; ++l) to[l] = static_cast<int8_t>(whole[l]);
}

}  // namespace
}  // namespace edgemoe
