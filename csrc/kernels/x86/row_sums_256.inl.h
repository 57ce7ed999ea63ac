// Integer sums of 8 rows in two 256-bit registers.
#pragma once

#include "kernels/x86/intrinsics.inl.h"

namespace edgemoe::kernels {
namespace {

// While columns are added: two 32-bit parts a row, or four of 16 bits.
struct RowSums {
  __m256i low;   // rows 0..3
  __m256i high;  // rows 4..7
};

inline RowSums zero_sums() noexcept {
  return {_mm256_setzero_si256(), _mm256_setzero_si256()};
}

// One 32-bit lane a row, from two 32-bit parts.
inline __m256i joined(const RowSums& sums) noexcept {
  const __m256i rows_014523 = _mm256_hadd_epi32(sums.low, sums.high);  // 0 1 4 5 | 2 3 6 7
  return _mm256_permute4x64_epi64(rows_014523, _MM_SHUFFLE(3, 1, 2, 0));
}

}  // namespace
}  // namespace edgemoe::kernels
