// The integer products of the AVX-VNNI level: what products_avx2.inl.h lists. vpdpbusd multiplies 4
// unsigned codes by 4 signed activations and adds them to a 32-bit part without saturation; codes
// carry a bias that is taken off again through the sums of the activations. All of it is exact
// modulo 2^32.
//
// The instruction has two encodings: VEX (client CPUs) and EVEX (CPUs with AVX-512). The file is
// compiled for both, so that the level runs wherever one of them does.
#pragma once

#include "kernels/x86/vector_avx2.inl.h"

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr int kTileBias = Format::kSigned ? 128 : Format::kBias;

template <class Format>
__m256i stored_codes(__m256i codes) noexcept {
  return Format::kSigned ? _mm256_xor_si256(codes, splat_byte(0x80)) : codes;
}

// In both 32-bit parts of a lane.
inline __m256i stored_scales(const int8_t* rows) noexcept {
  return _mm256_shuffle_epi32(_mm256_cvtepi8_epi64(_mm_loadu_si32(rows)), _MM_SHUFFLE(2, 2, 0, 0));
}

template <class Format>
inline constexpr size_t kUnitsPerSum = Format::kSpan / kUnitColumns;

template <class Format>
struct Codes {
  __m256i value;
  explicit Codes(__m256i codes) noexcept : value(codes) {}
};

template <class Format>
__m256i add_products(__m256i products, const Codes<Format>& codes, __m256i x) noexcept {
#if defined(__AVX512VNNI__)
  return _mm256_dpbusd_epi32(products, codes.value, x);
#else
  return _mm256_dpbusd_avx_epi32(products, codes.value, x);
#endif
}

// A product of 16-bit halves takes one operation where vpmulld takes two on client CPUs; it serves
// when products fit: the scale's upper half is masked away.
template <class Format>
__m256i scaled(__m256i products, __m256i scale) noexcept {
  constexpr int kLargestProduct = static_cast<int>(Format::kSpan / 2) * Format::kMaxCode * 127;
  if constexpr (!Format::kScaled) return products;
  if constexpr (!Format::kSigned && kLargestProduct <= 32767) {
    return _mm256_madd_epi16(products, _mm256_and_si256(scale, _mm256_set1_epi32(0xFFFF)));
  }
  return _mm256_mullo_epi32(products, scale);
}

inline __m256i widened(__m256i products) noexcept {
  return products;
}

}  // namespace
}  // namespace edgemoe::kernels
