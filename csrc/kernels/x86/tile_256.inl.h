// What the levels with 256-bit registers share: the tile of 8 rows in two registers, 8 columns of a
// row in each 64-bit lane, and everything around the integer products. The file that includes this
// one last has defined
//
//   kTileTokens<Format>  see generic/matmul_tile.inl.h
//   kTileBias<Format>    what the codes in the tile carry
//   stored_codes<Format>(codes), stored_scales(bytes)      as the tile keeps them, 4 rows
//   kUnitsPerSum<Format>                  so many units may be added before they meet the scale
//   Codes<Format>, add_products<Format>(products, codes, x)  adds codes * activations of a unit
//   scaled<Format>(products, scale)       two 32-bit parts a row
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/x86/vector_avx2.inl.h"

namespace edgemoe::kernels {
namespace {

struct alignas(32) FoldTile {
  uint64_t code[kMaxFold / kUnitColumns][kTileRows];
  uint64_t scale[kMaxSpans][kTileRows];  // one for each kSpan columns
  // Of sub-blocks 2i and 2i + 1, as 16-bit halves; what multiplies two sums at once.
  uint32_t scale_pair[kMaxSpans / 2][kTileRows];  // read when the tile has a bias
  uint32_t min_pair[kMaxSpans / 2][kTileRows];    // read when minima are scaled
  float d[kTileRows];
  float dmin[kTileRows];
  ScaleBytes bytes;
};

inline void store_lanes(void* to, __m256i lanes) noexcept {
  _mm256_store_si256(static_cast<__m256i*>(to), lanes);
}

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
  store_lanes(tile.code[index], stored_codes<Format>(unit.part[0]));
  store_lanes(tile.code[index] + 4, stored_codes<Format>(unit.part[1]));
}

inline __m256i widened_rows(const int8_t* rows) noexcept {
  return _mm256_cvtepi8_epi32(_mm_loadu_si64(rows));
}

// Factors of sub-blocks 2i and 2i + 1: those of one span of 32 columns or of two of 16.
template <size_t kSpan>
void store_pairs(const int8_t* bytes, size_t columns, uint32_t (*pairs)[kTileRows]) noexcept {
  constexpr int kHighHalves = 0xAA;
  for (size_t i = 0; i < columns / 32; ++i) {
    const __m256i first = widened_rows(bytes + (kSpan == 32 ? i : 2 * i) * kRowGroup);
    const __m256i second = kSpan == 32 ? first : widened_rows(bytes + (2 * i + 1) * kRowGroup);
    store_lanes(pairs[i], _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), kHighHalves));
  }
  if (columns == kSubBlock) store_lanes(pairs[0], widened_rows(bytes));
}

template <class Format>
void widen_scales(size_t columns, FoldTile& tile) noexcept {
  if constexpr (Format::kScaled) {
    for (size_t span = 0; span < columns / Format::kSpan; ++span) {
      const int8_t* rows = tile.bytes.scale[0] + span * kRowGroup;
      store_lanes(tile.scale[span], stored_scales(rows));
      store_lanes(tile.scale[span] + 4, stored_scales(rows + 4));
    }
    if constexpr (kTileBias<Format> != 0) {
      store_pairs<Format::kSpan>(tile.bytes.scale[0], columns, tile.scale_pair);
    }
  }
  if constexpr (Format::kMinimum == Minimum::kScaled) {
    store_pairs<Format::kSpan>(tile.bytes.min[0], columns, tile.min_pair);
  }
}

inline __m256i broadcast_4_bytes(const void* from) noexcept {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm256_set1_epi32(bytes);
}

// Integer sums of 8 rows while columns are added: two 32-bit parts a row.
struct RowSums {
  __m256i low;   // rows 0..3
  __m256i high;  // rows 4..7
};

// One 32-bit lane a row.
inline __m256i joined(const RowSums& sums) noexcept {
  const __m256i rows_014523 = _mm256_hadd_epi32(sums.low, sums.high);  // 0 1 4 5 | 2 3 6 7
  return _mm256_permute4x64_epi64(rows_014523, _MM_SHUFFLE(3, 1, 2, 0));
}

// sum over sub-blocks of factor * (sum of the activations), one factor a row and sub-block.
inline __m256i weighted_sums(const uint32_t (*factor_pair)[kTileRows], size_t columns,
                             const int16_t* sums) noexcept {
  if (columns == kSubBlock) {  // there is no second sum to read
    return _mm256_madd_epi16(load_lanes(factor_pair[0]),
                             _mm256_set1_epi32(static_cast<uint16_t>(sums[0])));
  }
  __m256i total = _mm256_setzero_si256();
  for (size_t pair = 0; pair < columns / kSubBlock / 2; ++pair) {
    const __m256i products =
        _mm256_madd_epi16(load_lanes(factor_pair[pair]), broadcast_4_bytes(sums + 2 * pair));
    total = _mm256_add_epi32(total, products);
  }
  return total;
}

template <class Format>
__m256i without_bias(const FoldTile& tile, size_t columns, const int16_t* x_sums,
                     __m256i sum) noexcept {
  if constexpr (kTileBias<Format> == 0) {
    return sum;
  } else if constexpr (Format::kScaled) {
    const __m256i offset = weighted_sums(tile.scale_pair, columns, x_sums);
    return _mm256_sub_epi32(sum, _mm256_mullo_epi32(offset, _mm256_set1_epi32(kTileBias<Format>)));
  } else {  // 32 columns, every scale 1
    const __m256i offset =
        _mm256_madd_epi16(_mm256_set1_epi16(kTileBias<Format>), broadcast_4_bytes(x_sums));
    return _mm256_sub_epi32(sum, offset);
  }
}

// sum over sub-blocks of min * (sum of the activations).
template <class Format>
__m256i minimum_sums(const FoldTile& tile, size_t columns, const int16_t* x_sums) noexcept {
  if constexpr (Format::kMinimum == Minimum::kScaled) {
    return weighted_sums(tile.min_pair, columns, x_sums);
  } else {  // 32 columns
    return _mm256_set1_epi32(x_sums[0] + x_sums[1]);
  }
}

// total + the fold, whose integer sum is given.
template <class Format>
__m256 add_fold(const FoldTile& tile, size_t columns, const FoldActivations& x, __m256i sum,
                __m256 total) noexcept {
  const __m256 scale = _mm256_set1_ps(x.scale);
  const __m256 d = _mm256_mul_ps(_mm256_load_ps(tile.d), scale);
  total = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(without_bias<Format>(tile, columns, x.sums, sum)),
                          total);
  if constexpr (Format::kMinimum != Minimum::kNone) {
    const __m256i offset = minimum_sums<Format>(tile, columns, x.sums);
    const __m256 dmin = _mm256_mul_ps(_mm256_load_ps(tile.dmin), scale);
    total = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(offset), total);
  }
  return total;
}

// Always inline: the sums stay in registers from span to span.
template <class Format, size_t kTokens>
[[gnu::always_inline]] inline void multiply_span(const FoldTile& tile, size_t span,
                                                 const int8_t* const* values,
                                                 RowSums* sums) noexcept {
  constexpr size_t kUnits = Format::kSpan / kUnitColumns;
  constexpr size_t kUnitsOfSum = kUnits < kUnitsPerSum<Format> ? kUnits : kUnitsPerSum<Format>;
  const __m256i low_scale = load_lanes(tile.scale[span]);
  const __m256i high_scale = load_lanes(tile.scale[span] + 4);
#pragma GCC unroll 4
  for (size_t first = 0; first < kUnits; first += kUnitsOfSum) {
    RowSums products[kTokens];
    for (RowSums& zero : products) zero = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 4
    for (size_t k = first; k < first + kUnitsOfSum; ++k) {
      const uint64_t* unit = tile.code[span * kUnits + k];
      const Codes<Format> low(load_lanes(unit));
      const Codes<Format> high(load_lanes(unit + 4));
#pragma GCC unroll 4
      for (size_t t = 0; t < kTokens; ++t) {
        const __m256i x = broadcast_8_bytes(values[t] + span * Format::kSpan + k * kUnitColumns);
        products[t].low = add_products<Format>(products[t].low, low, x);
        products[t].high = add_products<Format>(products[t].high, high, x);
      }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < kTokens; ++t) {
      sums[t].low = _mm256_add_epi32(sums[t].low, scaled<Format>(products[t].low, low_scale));
      sums[t].high = _mm256_add_epi32(sums[t].high, scaled<Format>(products[t].high, high_scale));
    }
  }
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  RowSums sums[kTokens];
  const int8_t* values[kTokens];
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    sums[t] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    values[t] = rows[t].codes + columns.first;
  }
  for (size_t span = 0; span < count / Format::kSpan; ++span) {
    multiply_span<Format, kTokens>(tile, span, values, sums);
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    const FoldActivations x = fold_activations(rows[t], columns);
    _mm256_store_ps(totals[t],
                    add_fold<Format>(tile, count, x, joined(sums[t]), _mm256_load_ps(totals[t])));
  }
}

}  // namespace
}  // namespace edgemoe::kernels
