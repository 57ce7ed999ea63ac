// Types of 32 elements with a float scale of their own: a unit is eight blocks.
#pragma once

#include "quant/generic/quantize_affine.inl.h"
#include "quant/generic/quantize_scale.inl.h"
#include "quant/generic/quantize_values.inl.h"

namespace edgemoe {
namespace {

using BlockTile = Tile<8>;
inline constexpr size_t kUnitBlocks = 8;
inline constexpr size_t kBlock = 32;

inline void put_u16(uint16_t value, std::byte* to) noexcept {
  __builtin_memcpy(to, &value, sizeof value);
}

// First half of the codes low, second half high.
inline void put_nibbles(const int8_t* codes, std::byte* to) noexcept {
  for (size_t i = 0; i < kBlock / 2; ++i) {
    to[i] = static_cast<std::byte>((codes[i] & 15) | (codes[i + kBlock / 2] & 15) << 4);
  }
}

inline void put_fifth_bits(const int8_t* codes, std::byte* to) noexcept {
  uint32_t high = 0;
  for (size_t i = 0; i < kBlock; ++i) high |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
  __builtin_memcpy(to, &high, sizeof high);
}

// Scales as halves, and the codes that are best under those.
template <class Codes, size_t kTargets>
inline void fit_blocks(const BlockTile& tile, const float (&targets)[kTargets],
                       HalfScale (&scales)[kUnitBlocks], int8_t* codes) noexcept {
  float exact[kUnitBlocks];
  for (size_t first = 0; first < kUnitBlocks; first += kLanes) {
    store(best_scales<Codes>(tile, first, targets), exact + first);
  }
  float rounded[kUnitBlocks];
  for (size_t b = 0; b < kUnitBlocks; ++b) {
    scales[b] = tile.half(exact[b]);
    rounded[b] = scales[b].value;
  }
  int8_t by_sub[kUnitElements];
  find_codes<Codes>(tile, rounded, by_sub);
  restore_order<kUnitBlocks>(by_sub, codes);
}

struct AffineHalves {
  HalfScale scale;
  HalfScale minimum;
};

// As above with minima.
template <int kMost, size_t kRanges>
inline void fit_affine_blocks(const BlockTile& tile, const float (&ranges)[kRanges],
                              AffineHalves (&found)[kUnitBlocks], int8_t* codes) noexcept {
  float scales[kUnitBlocks];
  float minima[kUnitBlocks];
  for (size_t first = 0; first < kUnitBlocks; first += kLanes) {
    const Affine best = best_affines<kMost, true>(tile, first, plain_sums(tile, first), ranges);
    store(best.scale, scales + first);
    store(best.minimum, minima + first);
  }
  for (size_t b = 0; b < kUnitBlocks; ++b) {
    found[b] = {tile.half(scales[b]), tile.half(-minima[b])};  // stored as what is added
    scales[b] = found[b].scale.value;
    minima[b] = -found[b].minimum.value;
  }
  int8_t by_sub[kUnitElements];
  find_codes<kMost>(tile, scales, minima, by_sub);
  restore_order<kUnitBlocks>(by_sub, codes);
}

inline void quantize_Q8_0(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kTargets[] = {127.0f, 126.5f};
  BlockTile tile;
  fill_tile(weights, importance, tile);
  HalfScale scales[kUnitBlocks];
  int8_t codes[kUnitElements];
  fit_blocks<WholeCodes<-127, 127>>(tile, kTargets, scales, codes);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 34) {
    put_u16(scales[b].bits, out);
    __builtin_memcpy(out + 2, codes + b * kBlock, kBlock);
  }
}

inline void quantize_Q4_0(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kTargets[] = {-8.9f, -8.5f, -8.2f, -7.9f, -7.6f, -7.3f, -7.0f,
                                -6.7f, -6.4f, -6.0f, -5.5f, 7.0f,  7.4f};
  BlockTile tile;
  fill_tile(weights, importance, tile);
  HalfScale scales[kUnitBlocks];
  int8_t codes[kUnitElements];
  fit_blocks<WholeCodes<-8, 7>>(tile, kTargets, scales, codes);
  for (int8_t& code : codes) code = static_cast<int8_t>(code + 8);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 18) {
    put_u16(scales[b].bits, out);
    put_nibbles(codes + b * kBlock, out + 2);
  }
}

inline void quantize_Q5_0(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kTargets[] = {-17.0f, -16.5f, -16.1f, -15.8f, -15.4f,
                                -15.0f, -14.5f, -14.0f, -13.4f, 15.0f};
  BlockTile tile;
  fill_tile(weights, importance, tile);
  HalfScale scales[kUnitBlocks];
  int8_t codes[kUnitElements];
  fit_blocks<WholeCodes<-16, 15>>(tile, kTargets, scales, codes);
  for (int8_t& code : codes) code = static_cast<int8_t>(code + 16);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 22) {
    put_u16(scales[b].bits, out);
    put_fifth_bits(codes + b * kBlock, out + 2);
    put_nibbles(codes + b * kBlock, out + 6);
  }
}

inline void quantize_Q4_1(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kRanges[] = {14.0f, 14.4f, 14.7f, 15.0f, 15.3f, 15.7f,
                               16.2f, 16.8f, 17.5f, 18.3f, 19.2f};
  BlockTile tile;
  fill_tile(weights, importance, tile);
  AffineHalves found[kUnitBlocks];
  int8_t codes[kUnitElements];
  fit_affine_blocks<15>(tile, kRanges, found, codes);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 20) {
    put_u16(found[b].scale.bits, out);
    put_u16(found[b].minimum.bits, out + 2);
    put_nibbles(codes + b * kBlock, out + 4);
  }
}

inline void quantize_Q5_1(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kRanges[] = {30.0f, 30.5f, 31.0f, 31.5f, 32.1f, 32.8f, 33.7f, 35.0f};
  BlockTile tile;
  fill_tile(weights, importance, tile);
  AffineHalves found[kUnitBlocks];
  int8_t codes[kUnitElements];
  fit_affine_blocks<31>(tile, kRanges, found, codes);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 24) {
    put_u16(found[b].scale.bits, out);
    put_u16(found[b].minimum.bits, out + 2);
    put_fifth_bits(codes + b * kBlock, out + 4);
    put_nibbles(codes + b * kBlock, out + 8);
  }
}

// Targets: the extreme weight as the lowest value or near it, or as the highest.
inline constexpr float kIq4Targets[] = {-140.0f, -134.0f, -129.0f, -124.0f, -119.0f,
                                        -114.0f, -108.0f, -102.0f, -94.0f,  120.0f,
                                        114.0f,  108.0f,  102.0f,  95.0f,   88.0f};

inline void quantize_IQ4_NL(const float* weights, const float* importance,
                            std::byte* out) noexcept {
  BlockTile tile;
  fill_tile(weights, importance, tile);
  HalfScale scales[kUnitBlocks];
  int8_t codes[kUnitElements];
  fit_blocks<Iq4Codes>(tile, kIq4Targets, scales, codes);
  values_to_indices(kIq4Indices, kUnitElements, codes);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 18) {
    put_u16(scales[b].bits, out);
    put_nibbles(codes + b * kBlock, out + 2);
  }
}

// The scale is a power of two: the one under which the largest weight is just clamped or just not,
// and its neighbours.
inline void quantize_MXFP4(const float* weights, const float* importance, std::byte* out) noexcept {
  BlockTile tile;
  fill_tile(weights, importance, tile);
  float scales[kUnitBlocks];
  for (size_t first = 0; first < kUnitBlocks; first += kLanes) {
    const Integers bits = reinterpret_cast<Integers>(magnitude(extremes(tile, first)));
    // Half of 2^(exponent - 2), because the values are doubled; 0 where all weights are 0.
    const Integers exponent = (bits >> 23) - 3;
    Floats best_gain{};
    Floats best{};
    for (int step = -1; step <= 1; ++step) {
      const Integers biased = exponent + step;
      const Floats scale =
          where((biased > 0) & (biased < 255), reinterpret_cast<Floats>(biased << 23));
      const Floats gain = gain_at(scale_sums<Fp4Codes>(tile, first, inverse(scale)), scale);
      const Integers better = gain > best_gain;
      best = better ? scale : best;
      best_gain = better ? gain : best_gain;
    }
    store(best, scales + first);
  }
  uint8_t stored[kUnitBlocks];
  for (size_t b = 0; b < kUnitBlocks; ++b) {
    const int biased = static_cast<int>(__builtin_bit_cast(uint32_t, scales[b]) >> 23);
    const int exponent = biased + 1 + tile.exponent;  // of the scale of undoubled values
    const bool none = biased == 0 || exponent < 0;
    stored[b] = none ? uint8_t{0} : static_cast<uint8_t>(exponent > 254 ? 254 : exponent);
    scales[b] = none ? 0.0f : power_of_two(stored[b] - 1 - tile.exponent - 127);
  }
  int8_t by_sub[kUnitElements];
  int8_t codes[kUnitElements];
  find_codes<Fp4Codes>(tile, scales, by_sub);
  restore_order<kUnitBlocks>(by_sub, codes);
  values_to_indices(kFp4Indices, kUnitElements, codes);
  for (size_t b = 0; b < kUnitBlocks; ++b, out += 17) {
    out[0] = static_cast<std::byte>(stored[b]);
    put_nibbles(codes + b * kBlock, out + 1);
  }
}

}  // namespace
}  // namespace edgemoe
