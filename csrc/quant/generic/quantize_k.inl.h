// The K types: 256 elements whose sub-blocks have integer scales, some of them integer minima.
// unpack_k.cpp says where the bits go.
#pragma once

#include "quant/generic/quantize_affine.inl.h"
#include "quant/generic/quantize_block32.inl.h"
#include "quant/generic/quantize_scale.inl.h"

namespace edgemoe {
namespace {

// An affine fit of a unit with its codes in the order of the row.
template <size_t kSubs>
struct AffineUnit {
  SharedAffine<kSubs> shared;
  int8_t codes[kUnitElements];
};

template <int kMost, int kMostScale, int kReach, size_t kSubs, size_t kRanges>
inline void fit_affine_unit(const float* weights, const float* importance,
                            const float (&ranges)[kRanges], AffineUnit<kSubs>& unit) noexcept {
  Tile<kSubs> tile;
  fill_tile(weights, importance, tile);
  float scales[kSubs];
  float minima[kSubs];
  for (size_t first = 0; first < kSubs; first += kLanes) {
    const Affine best = best_affines<kMost, false>(tile, first, plain_sums(tile, first), ranges);
    store(best.scale, scales + first);
    store(best.minimum, minima + first);
  }
  unit.shared = share_affine<kMost, kMostScale, kReach>(tile, scales, minima);
  for (size_t s = 0; s < kSubs; ++s) {
    scales[s] = unit.shared.scale[s] * unit.shared.d.value;
    minima[s] = unit.shared.minimum[s] * unit.shared.dmin.value;
  }
  int8_t by_sub[kUnitElements];
  find_codes<kMost>(tile, scales, minima, by_sub);
  restore_order<kSubs>(by_sub, unit.codes);
}

inline void quantize_Q2_K(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kRanges[] = {2.1f, 2.4f, 2.7f, 3.0f, 3.3f, 3.6f, 4.0f, 4.5f, 5.0f};
  AffineUnit<16> unit;
  fit_affine_unit<3, 15, 2>(weights, importance, kRanges, unit);
  for (size_t s = 0; s < 16; ++s) {
    const auto scale = static_cast<unsigned>(unit.shared.scale[s]);
    const auto minimum = static_cast<unsigned>(unit.shared.minimum[s]);
    out[s] = static_cast<std::byte>(scale | minimum << 4);
  }
  for (size_t half = 0; half < 2; ++half) {
    const int8_t* codes = unit.codes + half * 128;
    for (size_t i = 0; i < 32; ++i) {
      out[16 + half * 32 + i] = static_cast<std::byte>(codes[i] | codes[i + 32] << 2 |
                                                       codes[i + 64] << 4 | codes[i + 96] << 6);
    }
  }
  put_u16(unit.shared.d.bits, out + 80);
  put_u16(unit.shared.dmin.bits, out + 82);
}

// Eight 6-bit scales and minima in 12 bytes.
inline void put_six_bit_scales(const SharedAffine<8>& shared, std::byte* out) noexcept {
  for (size_t s = 0; s < 4; ++s) {
    const auto low_scale = static_cast<unsigned>(shared.scale[s]);
    const auto low_minimum = static_cast<unsigned>(shared.minimum[s]);
    const auto high_scale = static_cast<unsigned>(shared.scale[s + 4]);
    const auto high_minimum = static_cast<unsigned>(shared.minimum[s + 4]);
    out[s] = static_cast<std::byte>(low_scale | high_scale >> 4 << 6);
    out[s + 4] = static_cast<std::byte>(low_minimum | high_minimum >> 4 << 6);
    out[s + 8] = static_cast<std::byte>((high_scale & 15) | (high_minimum & 15) << 4);
  }
}

// The low four bits of each pair of runs of 32.
inline void put_nibble_runs(const int8_t* codes, std::byte* out) noexcept {
  for (size_t pair = 0; pair < 4; ++pair) {
    for (size_t i = 0; i < 32; ++i) {
      const int8_t* low = codes + pair * 64;
      out[pair * 32 + i] = static_cast<std::byte>((low[i] & 15) | (low[i + 32] & 15) << 4);
    }
  }
}

inline void quantize_Q4_K(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kRanges[] = {14.0f, 14.4f, 14.7f, 15.0f, 15.3f, 15.7f,
                               16.2f, 16.8f, 17.5f, 18.3f, 19.2f};
  AffineUnit<8> unit;
  fit_affine_unit<15, 63, 1>(weights, importance, kRanges, unit);
  put_u16(unit.shared.d.bits, out);
  put_u16(unit.shared.dmin.bits, out + 2);
  put_six_bit_scales(unit.shared, out + 4);
  put_nibble_runs(unit.codes, out + 16);
}

inline void quantize_Q5_K(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kRanges[] = {30.0f, 30.5f, 31.0f, 31.5f, 32.1f, 32.8f, 33.7f, 35.0f};
  AffineUnit<8> unit;
  fit_affine_unit<31, 63, 1>(weights, importance, kRanges, unit);
  put_u16(unit.shared.d.bits, out);
  put_u16(unit.shared.dmin.bits, out + 2);
  put_six_bit_scales(unit.shared, out + 4);
  for (size_t i = 0; i < 32; ++i) {
    int high = 0;
    for (size_t run = 0; run < 8; ++run) high |= (unit.codes[run * 32 + i] >> 4) << run;
    out[16 + i] = static_cast<std::byte>(high);
  }
  put_nibble_runs(unit.codes, out + 48);
}

// A fit without minima, with its codes in the order of the row.
template <size_t kSubs>
struct ScaleUnit {
  SharedScale<kSubs> shared;
  int8_t codes[kUnitElements];
};

template <class Codes, int kLowScale, int kHighScale, size_t kSubs, size_t kTargets>
inline void fit_scale_unit(const float* weights, const float* importance,
                           const float (&targets)[kTargets], ScaleUnit<kSubs>& unit) noexcept {
  Tile<kSubs> tile;
  fill_tile(weights, importance, tile);
  float scales[kSubs];
  for (size_t first = 0; first < kSubs; first += kLanes) {
    store(best_scales<Codes>(tile, first, targets), scales + first);
  }
  unit.shared = share_scale<Codes, kLowScale, kHighScale>(tile, scales);
  for (size_t s = 0; s < kSubs; ++s) scales[s] = unit.shared.scale[s] * unit.shared.d.value;
  int8_t by_sub[kUnitElements];
  find_codes<Codes>(tile, scales, by_sub);
  restore_order<kSubs>(by_sub, unit.codes);
}

inline void quantize_Q3_K(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kTargets[] = {-4.8f, -4.5f, -4.2f, -3.9f, -3.6f, -3.3f,
                                -3.0f, -2.6f, 2.4f,  2.8f,  3.2f,  3.5f};
  ScaleUnit<16> unit;
  fit_scale_unit<WholeCodes<-4, 3>, -32, 31>(weights, importance, kTargets, unit);
  for (size_t i = 0; i < 32; ++i) {
    int high = 0;
    for (size_t run = 0; run < 8; ++run) {
      high |= (unit.codes[run * 32 + i] >= 0 ? 1 : 0) << run;
    }
    out[i] = static_cast<std::byte>(high);
  }
  for (size_t half = 0; half < 2; ++half) {
    const int8_t* codes = unit.codes + half * 128;
    for (size_t i = 0; i < 32; ++i) {
      out[32 + half * 32 + i] =
          static_cast<std::byte>((codes[i] & 3) | (codes[i + 32] & 3) << 2 |
                                 (codes[i + 64] & 3) << 4 | (codes[i + 96] & 3) << 6);
    }
  }
  unsigned scales[16];
  for (size_t s = 0; s < 16; ++s) scales[s] = static_cast<unsigned>(unit.shared.scale[s] + 32.0f);
  for (size_t s = 0; s < 8; ++s) {
    out[96 + s] = static_cast<std::byte>((scales[s] & 15) | (scales[s + 8] & 15) << 4);
  }
  for (size_t s = 0; s < 4; ++s) {
    out[104 + s] = static_cast<std::byte>(scales[s] >> 4 | scales[s + 4] >> 4 << 2 |
                                          scales[s + 8] >> 4 << 4 | scales[s + 12] >> 4 << 6);
  }
  put_u16(unit.shared.d.bits, out + 108);
}

inline void quantize_Q6_K(const float* weights, const float* importance, std::byte* out) noexcept {
  constexpr float kTargets[] = {-33.0f, -32.5f, -32.1f, -31.7f, -31.2f, -30.6f, -29.8f, 31.0f};
  ScaleUnit<16> unit;
  fit_scale_unit<WholeCodes<-32, 31>, -128, 127>(weights, importance, kTargets, unit);
  for (int8_t& code : unit.codes) code = static_cast<int8_t>(code + 32);
  for (size_t half = 0; half < 2; ++half) {
    const int8_t* codes = unit.codes + half * 128;
    for (size_t i = 0; i < 64; ++i) {
      out[half * 64 + i] = static_cast<std::byte>((codes[i] & 15) | (codes[i + 64] & 15) << 4);
    }
    for (size_t i = 0; i < 32; ++i) {
      out[128 + half * 32 + i] =
          static_cast<std::byte>(codes[i] >> 4 | codes[i + 32] >> 4 << 2 | codes[i + 64] >> 4 << 4 |
                                 codes[i + 96] >> 4 << 6);
    }
  }
  for (size_t s = 0; s < 16; ++s) {
    out[192 + s] = static_cast<std::byte>(static_cast<int8_t>(unit.shared.scale[s]));
  }
  put_u16(unit.shared.d.bits, out + 208);
}

// IQ4_XS: eight 6-bit scales, low nibbles two to a byte, high pairs in a 16-bit word.
inline void quantize_IQ4_XS(const float* weights, const float* importance,
                            std::byte* out) noexcept {
  ScaleUnit<8> unit;
  fit_scale_unit<Iq4Codes, -32, 31>(weights, importance, kIq4Targets, unit);
  values_to_indices(kIq4Indices, kUnitElements, unit.codes);
  put_u16(unit.shared.d.bits, out);
  unsigned scales[8];
  unsigned high = 0;
  for (size_t s = 0; s < 8; ++s) {
    scales[s] = static_cast<unsigned>(unit.shared.scale[s] + 32.0f);
    high |= scales[s] >> 4 << (2 * s);
  }
  put_u16(static_cast<uint16_t>(high), out + 2);
  for (size_t s = 0; s < 4; ++s) {
    out[4 + s] = static_cast<std::byte>((scales[2 * s] & 15) | (scales[2 * s + 1] & 15) << 4);
  }
  for (size_t s = 0; s < 8; ++s) put_nibbles(unit.codes + s * kBlock, out + 8 + s * 16);
}

}  // namespace
}  // namespace edgemoe
