// The peak of the levels with 256-bit registers (see generic/peak.inl.h): vpdpbusd alone, or at
// AVX2 what formats with codes up to 32 need: four vpmaddubsw added in 16 bits, then widened once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/x86/intrinsics.inl.h"

namespace edgemoe::kernels {
namespace {

using PeakSum = __m256i;
using PeakCodes = __m256i;

inline __m256i zero_peak_sum() noexcept {
  return _mm256_setzero_si256();
}

inline __m256i peak_codes() noexcept {
  return _mm256_set1_epi8(3);
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
inline constexpr size_t kPeakSums = 12;
inline constexpr uint64_t kPeakProducts = 32;

[[gnu::always_inline]] inline void peak_step(__m256i codes, __m256i x, __m256i& sum) noexcept {
#if defined(__AVX512VNNI__)
  sum = _mm256_dpbusd_epi32(sum, codes, x);
#else
  sum = _mm256_dpbusd_avx_epi32(sum, codes, x);
#endif
}
#else
inline constexpr size_t kPeakSums = 8;
inline constexpr size_t kPeakUnits = 4;
inline constexpr uint64_t kPeakProducts = kPeakUnits * 32;

[[gnu::always_inline]] inline void peak_step(__m256i& codes, __m256i x, __m256i& sum) noexcept {
  __m256i products = _mm256_maddubs_epi16(codes, x);
#pragma GCC unroll 4
  for (size_t unit = 1; unit < kPeakUnits; ++unit) {
    asm volatile("" : "+x"(codes));  // another unit's codes, as far as the compiler knows
    products = _mm256_add_epi16(products, _mm256_maddubs_epi16(codes, x));
  }
  asm volatile("" : "+x"(codes));
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
}
#endif

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/peak.inl.h"  // needs the above
