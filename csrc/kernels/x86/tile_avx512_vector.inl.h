// The products of the AVX-512 level with one token: 8 rows, so that a matrix is one stream of
// memory, which the hardware's prefetch follows better than the two of a tile of 16 rows. Codes are
// unsigned with a bias as in tile_avx512.inl.h.
#pragma once

#include "kernels/x86/vector_avx512_vector.inl.h"

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr size_t kTileTokens = 1;

template <class Format>
inline constexpr int kTileBias = Format::kSigned ? 128 : Format::kBias;

// In both 32-bit parts of a lane.
inline void store_scales(const int8_t* rows, uint64_t* to) noexcept {
  const __m512i wide = _mm512_cvtepi8_epi64(_mm_loadu_si64(rows));
  _mm512_store_si512(to, _mm512_shuffle_epi32(wide, _MM_PERM_CCAA));
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/fold_8_rows.inl.h"  // needs the above

namespace edgemoe::kernels {
namespace {

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
  Vector codes = unit.part[0];
  if constexpr (Format::kSigned) codes = bit_xor(codes, splat_byte(0x80));
  _mm512_store_si512(tile.code[index], codes);
}

// scale * code * activation of one span: two 32-bit parts a row.
template <class Format>
__m512i span_products(const FoldTile& tile, size_t span, const int8_t* values) noexcept {
  constexpr size_t kUnits = Format::kSpan / kUnitColumns;
  __m512i products = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (size_t k = 0; k < kUnits; ++k) {
    int64_t x;
    __builtin_memcpy(&x, values + k * kUnitColumns, sizeof(x));
    products = _mm512_dpbusd_epi32(products, _mm512_load_si512(tile.code[span * kUnits + k]),
                                   _mm512_set1_epi64(x));
  }
  if constexpr (!Format::kScaled) return products;
  return _mm512_mullo_epi32(products, _mm512_load_si512(tile.scale[span]));
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  for (size_t t = 0; t < kTokens; ++t) {
    const int8_t* values = rows[t].codes + columns.first;
    __m512i sums = _mm512_setzero_si512();
    for (size_t span = 0; span < count / Format::kSpan; ++span) {
      sums =
          _mm512_add_epi32(sums, span_products<Format>(tile, span, values + span * Format::kSpan));
    }
    const __m512i joined = _mm512_add_epi32(sums, _mm512_srli_epi64(sums, 32));
    _mm256_store_ps(totals[t],
                    add_fold<Format>(tile, count, fold_activations(rows[t], columns),
                                     _mm512_cvtepi64_epi32(joined), _mm256_load_ps(totals[t])));
  }
}

}  // namespace
}  // namespace edgemoe::kernels
