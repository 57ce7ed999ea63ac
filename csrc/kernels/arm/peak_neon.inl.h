// The peaks of the ARM levels (see generic/peak.inl.h): smmla, sdot, or in plain NEON what formats
// with codes up to 64 need: four products of 8 columns added in 16 bits, then widened once.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

using PeakSum = int32x4_t;
inline constexpr size_t kPeakSums = 16;

inline int32x4_t zero_peak_sum() noexcept {
  return vdupq_n_s32(0);
}

#if defined(__ARM_FEATURE_MATMUL_INT8) || defined(__ARM_FEATURE_DOTPROD)
using PeakCodes = int8x16_t;

inline int8x16_t peak_codes() noexcept {
  return vdupq_n_s8(3);
}

[[gnu::always_inline]] inline void peak_step(int8x16_t codes, int8x16_t x,
                                             int32x4_t& sum) noexcept {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  sum = vmmlaq_s32(sum, codes, x);
#else
  sum = vdotq_s32(sum, codes, x);
#endif
}
#if defined(__ARM_FEATURE_MATMUL_INT8)
inline constexpr uint64_t kPeakProducts = 32;
#else
inline constexpr uint64_t kPeakProducts = 16;
#endif
#else
using PeakCodes = int8x8_t;
inline constexpr size_t kPeakUnits = 4;
inline constexpr uint64_t kPeakProducts = kPeakUnits * 8;

inline int8x8_t peak_codes() noexcept {
  return vdup_n_s8(3);
}

[[gnu::always_inline]] inline void peak_step(int8x8_t& codes, int8x8_t x, int32x4_t& sum) noexcept {
  int16x8_t products = vmull_s8(codes, x);
#pragma GCC unroll 4
  for (size_t unit = 1; unit < kPeakUnits; ++unit) {
    asm volatile("" : "+w"(codes));  // another unit's codes, as far as the compiler knows
    products = vmlal_s8(products, codes, x);
  }
  asm volatile("" : "+w"(codes));
  sum = vpadalq_s16(sum, products);
}
#endif

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/peak.inl.h"  // needs the above
