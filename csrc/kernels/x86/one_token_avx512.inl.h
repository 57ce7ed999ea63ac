// The products of the AVX-512 level with one token: 8 rows, so that a matrix is one stream of
// memory, which the hardware's prefetch follows better than the four of a tile of 32 rows. Codes
// are unsigned with a bias as in tile_avx512.inl.h. Where spans have scales, the sums of each begin
// with what takes the bias off; else it is taken off at the end of the fold.
#pragma once

#include "kernels/x86/vector_avx512_8_rows.inl.h"

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr int kCodeBias = Format::kSigned ? 128 : Format::kBias;
template <class Format>
inline constexpr int kTileBias = Format::kScaled ? 0 : kCodeBias<Format>;

// Two 32-bit parts a row.
using RowSums = __m512i;

inline RowSums zero_sums() noexcept {
  return _mm512_setzero_si512();
}

// Minus the bias times the activations of a span; `sums` are those of 16 columns each.
template <class Format>
RowSums first_products(const int16_t* sums, size_t span) noexcept {
  if constexpr (kCodeBias<Format> == kTileBias<Format>) return zero_sums();
  // Two 16-bit factors in the first part of a row.
  constexpr int64_t kFirst = static_cast<uint16_t>(-kCodeBias<Format>);
  constexpr int64_t kSecond = kFirst << 16;
  const auto minus = [](int64_t factors, __m512i x) noexcept {
    return _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi64(factors), x);
  };
  const auto pair = [&](size_t sum) noexcept {
    int32_t both;
    __builtin_memcpy(&both, sums + sum, sizeof(both));
    return _mm512_set1_epi32(both);
  };
  if constexpr (Format::kSpan == 2 * kSumBlock) return minus(kFirst | kSecond, pair(2 * span));
  if constexpr (Format::kColumns == 0) return minus(kFirst, _mm512_set1_epi16(sums[span]));
  return minus(span % 2 == 0 ? kFirst : kSecond, pair(span / 2 * 2));
}

template <class Format>
void add_unit(const CodeUnit& unit, const int8_t* values, RowSums& sums) noexcept {
  Vector codes = unit.part[0];
  if constexpr (Format::kSigned) codes = bit_xor(codes, splat_byte(0x80));
  int64_t x;
  __builtin_memcpy(&x, values, sizeof(x));
  sums = _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi64(x));
}

template <class Format>
void add_scaled(RowSums products, const int8_t* rows, RowSums& sums) noexcept {
  const __m512i scale =
      _mm512_shuffle_epi32(_mm512_cvtepi8_epi64(_mm_loadu_si64(rows)), _MM_PERM_CCAA);
  sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(products, scale));
}

template <class Format>
RowSums unscaled(RowSums products) noexcept {
  return products;
}

inline __m256i joined(RowSums sums) noexcept {
  return _mm512_cvtepi64_epi32(_mm512_add_epi32(sums, _mm512_srli_epi64(sums, 32)));
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/one_token_8_rows.inl.h"  // needs the above
