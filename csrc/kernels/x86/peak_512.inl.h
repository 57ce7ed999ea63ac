// The peak of the AVX-512 level (see generic/peak.inl.h): vpdpbusd alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/x86/intrinsics.inl.h"

namespace edgemoe::kernels {
namespace {

using PeakSum = __m512i;
using PeakCodes = __m512i;
inline constexpr size_t kPeakSums = 12;
inline constexpr uint64_t kPeakProducts = 64;

inline __m512i zero_peak_sum() noexcept {
  return _mm512_setzero_si512();
}

inline __m512i peak_codes() noexcept {
  return _mm512_set1_epi8(3);
}

[[gnu::always_inline]] inline void peak_step(__m512i codes, __m512i x, __m512i& sum) noexcept {
  sum = _mm512_dpbusd_epi32(sum, codes, x);
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/peak.inl.h"  // needs the above
