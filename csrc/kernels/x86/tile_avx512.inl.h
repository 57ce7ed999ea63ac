// The tile of the AVX-512 level: 16 rows in the 32-bit lanes of a register, 4 columns a lane.
// vpdpbusd multiplies 4 unsigned codes by 4 signed activations and adds them to the lane without
// saturation, so codes carry a bias that is taken off again through the sums of the activations:
// sum(code * x) = sum((code + bias) * x) - bias * sum(x). All of it is exact modulo 2^32.
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/x86/vector_avx512.inl.h"

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr size_t kTileTokens = 8;
inline constexpr size_t kLaneColumns = 4;  // codes in a 32-bit lane

struct alignas(64) FoldTile {
  uint32_t code[kMaxFold / kLaneColumns][kTileRows];  // with the tile's bias
  int32_t scale[kMaxSpans][kTileRows];                // one for each kSpan columns
  // Of sub-blocks 2i and 2i + 1, as 16-bit halves; what multiplies two sums at once.
  uint32_t scale_pair[kMaxSpans / 2][kTileRows];  // read when the tile has a bias
  uint32_t min_pair[kMaxSpans / 2][kTileRows];    // read when minima are scaled
  float d[kTileRows];
  float dmin[kTileRows];
  ScaleBytes bytes;
};

// Signed codes become unsigned by flipping their top bit, which adds 128.
template <class Format>
inline constexpr int kTileBias = Format::kSigned ? 128 : Format::kBias;

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
  for (size_t i = 0; i < kUnitVectors; ++i) {
    Vector codes = unit.part[i];
    if constexpr (Format::kSigned) codes = bit_xor(codes, splat_byte(0x80));
    _mm512_store_si512(tile.code[kUnitVectors * index + i], codes);
  }
}

inline __m512i widened_rows(const int8_t (&bytes)[kTileGroups][kMaxSpans * kRowGroup],
                            size_t span) noexcept {
  int64_t low;
  int64_t high;
  __builtin_memcpy(&low, bytes[0] + span * kRowGroup, sizeof(low));
  __builtin_memcpy(&high, bytes[1] + span * kRowGroup, sizeof(high));
  return _mm512_cvtepi8_epi32(_mm_set_epi64x(high, low));
}

// Factors of sub-blocks 2i and 2i + 1: those of one span of 32 columns or of two of 16.
template <size_t kSpan>
void store_pairs(const int8_t (&bytes)[kTileGroups][kMaxSpans * kRowGroup], size_t columns,
                 uint32_t (*pairs)[kTileRows]) noexcept {
  constexpr __mmask32 kHighHalves = 0xAAAAAAAAu;
  for (size_t i = 0; i < columns / 32; ++i) {
    const __m512i first = widened_rows(bytes, kSpan == 32 ? i : 2 * i);
    const __m512i second = kSpan == 32 ? first : widened_rows(bytes, 2 * i + 1);
    _mm512_store_si512(pairs[i],
                       _mm512_mask_blend_epi16(kHighHalves, first, _mm512_slli_epi32(second, 16)));
  }
  if (columns == kSubBlock) _mm512_store_si512(pairs[0], widened_rows(bytes, 0));
}

template <class Format>
void widen_scales(size_t columns, FoldTile& tile) noexcept {
  if constexpr (Format::kScaled) {
    for (size_t span = 0; span < columns / Format::kSpan; ++span) {
      _mm512_store_si512(tile.scale[span], widened_rows(tile.bytes.scale, span));
    }
    if constexpr (kTileBias<Format> != 0) {
      store_pairs<Format::kSpan>(tile.bytes.scale, columns, tile.scale_pair);
    }
  }
  if constexpr (Format::kMinimum == Minimum::kScaled) {
    store_pairs<Format::kSpan>(tile.bytes.min, columns, tile.min_pair);
  }
}

inline __m512i load_lanes(const void* lanes) noexcept {
  return _mm512_load_si512(lanes);
}

// The 4 bytes at `from` in every lane.
inline __m512i broadcast_4_bytes(const void* from) noexcept {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm512_set1_epi32(bytes);
}

// sum over sub-blocks of factor * (sum of the activations), one factor a row and sub-block.
inline __m512i weighted_sums(const uint32_t (*factor_pair)[kTileRows], size_t columns,
                             const int16_t* sums) noexcept {
  if (columns == kSubBlock) {  // there is no second sum to read
    return _mm512_mullo_epi32(
        _mm512_srai_epi32(_mm512_slli_epi32(load_lanes(factor_pair[0]), 16), 16),
        _mm512_set1_epi32(sums[0]));
  }
  __m512i total = _mm512_setzero_si512();
  for (size_t pair = 0; pair < columns / kSubBlock / 2; ++pair) {
    total = _mm512_dpwssd_epi32(total, load_lanes(factor_pair[pair]),
                                broadcast_4_bytes(sums + 2 * pair));
  }
  return total;
}

// scale * code * activation of one span and one token.
template <class Format>
__m512i span_products(const __m512i* codes, __m512i scale, const int8_t* values) noexcept {
  __m512i products = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (size_t k = 0; k < Format::kSpan / kLaneColumns; ++k) {
    products =
        _mm512_dpbusd_epi32(products, codes[k], broadcast_4_bytes(values + k * kLaneColumns));
  }
  return Format::kScaled ? _mm512_mullo_epi32(products, scale) : products;
}

template <class Format>
__m512i without_bias(const FoldTile& tile, size_t columns, const int16_t* x_sums,
                     __m512i sum) noexcept {
  if constexpr (kTileBias<Format> == 0) {
    return sum;
  } else if constexpr (Format::kScaled) {
    const __m512i offset = weighted_sums(tile.scale_pair, columns, x_sums);
    return _mm512_sub_epi32(sum, _mm512_mullo_epi32(offset, _mm512_set1_epi32(kTileBias<Format>)));
  } else {  // 32 columns, every scale 1
    return _mm512_dpwssd_epi32(sum, _mm512_set1_epi16(-kTileBias<Format>),
                               broadcast_4_bytes(x_sums));
  }
}

// sum over sub-blocks of min * (sum of the activations).
template <class Format>
__m512i minimum_sums(const FoldTile& tile, size_t columns, const int16_t* x_sums) noexcept {
  if constexpr (Format::kMinimum == Minimum::kScaled) {
    return weighted_sums(tile.min_pair, columns, x_sums);
  } else {  // 32 columns
    return _mm512_set1_epi32(x_sums[0] + x_sums[1]);
  }
}

// total + the fold, whose integer sum is given.
template <class Format>
__m512 add_fold(const FoldTile& tile, size_t columns, const FoldActivations& x, __m512i sum,
                __m512 total) noexcept {
  const __m512 scale = _mm512_set1_ps(x.scale);
  const __m512 d = _mm512_mul_ps(_mm512_load_ps(tile.d), scale);
  total = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(without_bias<Format>(tile, columns, x.sums, sum)),
                          total);
  if constexpr (Format::kMinimum != Minimum::kNone) {
    const __m512i offset = minimum_sums<Format>(tile, columns, x.sums);
    const __m512 dmin = _mm512_mul_ps(_mm512_load_ps(tile.dmin), scale);
    total = _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(offset), total);
  }
  return total;
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  constexpr size_t kSpanLanes = Format::kSpan / kLaneColumns;
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  __m512i sums[kTokens];
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) sums[t] = _mm512_setzero_si512();
  for (size_t span = 0; span < count / Format::kSpan; ++span) {
    __m512i codes[kSpanLanes];
#pragma GCC unroll 8
    for (size_t k = 0; k < kSpanLanes; ++k) codes[k] = load_lanes(tile.code[span * kSpanLanes + k]);
    const __m512i scale = load_lanes(tile.scale[span]);
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t) {
      const int8_t* values = rows[t].codes + columns.first + span * Format::kSpan;
      sums[t] = _mm512_add_epi32(sums[t], span_products<Format>(codes, scale, values));
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
    const FoldActivations x = fold_activations(rows[t], columns);
    _mm512_store_ps(totals[t],
                    add_fold<Format>(tile, count, x, sums[t], _mm512_load_ps(totals[t])));
  }
}

}  // namespace
}  // namespace edgemoe::kernels
