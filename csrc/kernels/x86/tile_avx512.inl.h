// The tile of the AVX-512 level: two halves of 16 rows in the 32-bit lanes of a register each, 4
// columns a lane. vpdpbusd multiplies 4 unsigned codes by 4 signed activations and adds them to the
// lane without saturation, so codes carry a bias that is taken off again through the sums of the
// activations: sum(code * x) = sum((code + bias) * x) - bias * sum(x). All of it is exact modulo
// 2^32.
//
// The loads of activations, broadcast to all lanes, are the bottleneck of a tile of one half: two
// halves share each of them.
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/x86/vector_avx512.inl.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kLaneColumns = 4;  // codes in a 32-bit lane
inline constexpr size_t kHalves = kTileRows / kHalfRows;

// Formats with integer scales keep the products of a span apart from the sums of the spans before.
template <class Format>
inline constexpr size_t kTileTokens = Format::kScaled ? 4 : 8;

struct alignas(64) FoldTile {
  uint32_t code[kMaxFold / kLaneColumns][kHalves][kHalfRows];  // with the tile's bias
  int32_t scale[kMaxSpans][kHalves][kHalfRows];                // one for each kSpan columns
  // Of sub-blocks 2i and 2i + 1, as 16-bit halves; what multiplies two sums at once.
  uint32_t scale_pair[kMaxSpans / 2][kHalves][kHalfRows];  // read when the tile has a bias
  uint32_t min_pair[kMaxSpans / 2][kHalves][kHalfRows];    // read when minima are scaled
  float d[kTileRows];
  float dmin[kTileRows];
  ScaleBytes bytes;
};

// The same 32-bit lanes of both halves.
struct Lanes32 {
  __m512i half[kHalves];
};

// Signed codes become unsigned by flipping their top bit, which adds 128.
template <class Format>
inline constexpr int kTileBias = Format::kSigned ? 128 : Format::kBias;

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
#pragma GCC unroll 4
  for (size_t i = 0; i < kUnitVectors; ++i) {
    Vector codes = unit.part[i];
    if constexpr (Format::kSigned) codes = bit_xor(codes, splat_byte(0x80));
    _mm512_store_si512(tile.code[2 * index + i % 2][i / 2], codes);
  }
}

using GroupBytes = int8_t[kTileGroups][kMaxSpans * kRowGroup];

inline __m512i widened_rows(const GroupBytes& bytes, size_t half, size_t span) noexcept {
  int64_t low;
  int64_t high;
  __builtin_memcpy(&low, bytes[2 * half] + span * kRowGroup, sizeof(low));
  __builtin_memcpy(&high, bytes[2 * half + 1] + span * kRowGroup, sizeof(high));
  return _mm512_cvtepi8_epi32(_mm_set_epi64x(high, low));
}

// Factors of sub-blocks 2i and 2i + 1: those of one span of 32 columns or of two of 16.
template <size_t kSpan>
void store_pairs(const GroupBytes& bytes, size_t half, size_t columns,
                 uint32_t (*pairs)[kHalves][kHalfRows]) noexcept {
  constexpr __mmask32 kHighHalves = 0xAAAAAAAAu;
  for (size_t i = 0; i < columns / 32; ++i) {
    const __m512i first = widened_rows(bytes, half, kSpan == 32 ? i : 2 * i);
    const __m512i second = kSpan == 32 ? first : widened_rows(bytes, half, 2 * i + 1);
    _mm512_store_si512(pairs[i][half],
                       _mm512_mask_blend_epi16(kHighHalves, first, _mm512_slli_epi32(second, 16)));
  }
  if (columns == kSubBlock) _mm512_store_si512(pairs[0][half], widened_rows(bytes, half, 0));
}

template <class Format>
void widen_scales(size_t columns, FoldTile& tile) noexcept {
  for (size_t half = 0; half < kHalves; ++half) {
    if constexpr (Format::kScaled) {
      for (size_t span = 0; span < columns / Format::kSpan; ++span) {
        _mm512_store_si512(tile.scale[span][half], widened_rows(tile.bytes.scale, half, span));
      }
      if constexpr (kTileBias<Format> != 0) {
        store_pairs<Format::kSpan>(tile.bytes.scale, half, columns, tile.scale_pair);
      }
    }
    if constexpr (Format::kMinimum == Minimum::kScaled) {
      store_pairs<Format::kSpan>(tile.bytes.min, half, columns, tile.min_pair);
    }
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
inline Lanes32 weighted_sums(const uint32_t (*factor_pair)[kHalves][kHalfRows], size_t columns,
                             const int16_t* sums) noexcept {
  Lanes32 total;
#pragma GCC unroll 2
  for (size_t half = 0; half < kHalves; ++half) {
    if (columns == kSubBlock) {  // there is no second sum to read
      total.half[half] = _mm512_mullo_epi32(
          _mm512_srai_epi32(_mm512_slli_epi32(load_lanes(factor_pair[0][half]), 16), 16),
          _mm512_set1_epi32(sums[0]));
      continue;
    }
    total.half[half] = _mm512_setzero_si512();
    for (size_t pair = 0; pair < columns / kSubBlock / 2; ++pair) {
      total.half[half] = _mm512_dpwssd_epi32(total.half[half], load_lanes(factor_pair[pair][half]),
                                             broadcast_4_bytes(sums + 2 * pair));
    }
  }
  return total;
}

template <class Format>
void take_off_bias(const FoldTile& tile, size_t columns, const int16_t* x_sums,
                   Lanes32& sums) noexcept {
  if constexpr (kTileBias<Format> == 0) return;
  if constexpr (Format::kScaled) {
    const Lanes32 offset = weighted_sums(tile.scale_pair, columns, x_sums);
    const __m512i bias = _mm512_set1_epi32(kTileBias<Format>);
    for (size_t half = 0; half < kHalves; ++half) {
      sums.half[half] =
          _mm512_sub_epi32(sums.half[half], _mm512_mullo_epi32(offset.half[half], bias));
    }
  }
}

// sum over sub-blocks of min * (sum of the activations).
template <class Format>
Lanes32 minimum_sums(const FoldTile& tile, size_t columns, const int16_t* x_sums) noexcept {
  if constexpr (Format::kMinimum == Minimum::kScaled) {
    return weighted_sums(tile.min_pair, columns, x_sums);
  } else {  // 32 columns
    const __m512i sum = _mm512_set1_epi32(x_sums[0] + x_sums[1]);
    return {{sum, sum}};
  }
}

// totals += the fold, whose integer sums are given.
template <class Format>
void add_fold(const FoldTile& tile, size_t columns, const FoldActivations& x, Lanes32 sums,
              float (&totals)[kTileRows]) noexcept {
  const __m512 scale = _mm512_set1_ps(x.scale);
  take_off_bias<Format>(tile, columns, x.sums, sums);
  Lanes32 minima;
  if constexpr (Format::kMinimum != Minimum::kNone) {
    minima = minimum_sums<Format>(tile, columns, x.sums);
  }
#pragma GCC unroll 2
  for (size_t half = 0; half < kHalves; ++half) {
    const size_t row = half * kHalfRows;
    const __m512 d = _mm512_mul_ps(_mm512_load_ps(tile.d + row), scale);
    __m512 total = _mm512_load_ps(totals + row);
    total = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(sums.half[half]), total);
    if constexpr (Format::kMinimum != Minimum::kNone) {
      const __m512 dmin = _mm512_mul_ps(_mm512_load_ps(tile.dmin + row), scale);
      total = _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(minima.half[half]), total);
    }
    _mm512_store_ps(totals + row, total);
  }
}

// Where every scale is 1 the sum begins with what the bias of its 32 columns adds.
template <class Format>
__m512i first_sum(const int16_t* x_sums) noexcept {
  if constexpr (Format::kScaled || kTileBias<Format> == 0) {
    return _mm512_setzero_si512();
  } else {
    return _mm512_set1_epi32(-kTileBias<Format> * (x_sums[0] + x_sums[1]));
  }
}

// products[t] = codes * activations of the span. Always inline: they stay in registers.
template <class Format, size_t kTokens>
[[gnu::always_inline]] inline void multiply_span(const FoldTile& tile, size_t span,
                                                 const int8_t* const* values,
                                                 Lanes32* products) noexcept {
  constexpr size_t kSpanLanes = Format::kSpan / kLaneColumns;
#pragma GCC unroll 8
  for (size_t k = 0; k < kSpanLanes; ++k) {
    const __m512i first = load_lanes(tile.code[span * kSpanLanes + k][0]);
    const __m512i second = load_lanes(tile.code[span * kSpanLanes + k][1]);
#pragma GCC unroll 8
    for (size_t t = 0; t < kTokens; ++t) {
      const __m512i x = broadcast_4_bytes(values[t] + span * Format::kSpan + k * kLaneColumns);
      products[t].half[0] = _mm512_dpbusd_epi32(products[t].half[0], first, x);
      products[t].half[1] = _mm512_dpbusd_epi32(products[t].half[1], second, x);
    }
  }
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  Lanes32 sums[kTokens];
  const int8_t* values[kTokens];
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
    const __m512i start = first_sum<Format>(rows[t].sums + columns.first / kSumBlock);
    sums[t] = {{start, start}};
    values[t] = rows[t].codes + columns.first;
  }
  if constexpr (!Format::kScaled) {  // one span
    multiply_span<Format, kTokens>(tile, 0, values, sums);
  } else {
    for (size_t span = 0; span < count / Format::kSpan; ++span) {
      Lanes32 products[kTokens];
#pragma GCC unroll 8
      for (size_t t = 0; t < kTokens; ++t) {
        products[t] = {{_mm512_setzero_si512(), _mm512_setzero_si512()}};
      }
      multiply_span<Format, kTokens>(tile, span, values, products);
#pragma GCC unroll 2
      for (size_t half = 0; half < kHalves; ++half) {
        const __m512i scale = load_lanes(tile.scale[span][half]);
#pragma GCC unroll 8
        for (size_t t = 0; t < kTokens; ++t) {
          sums[t].half[half] = _mm512_add_epi32(sums[t].half[half],
                                                _mm512_mullo_epi32(products[t].half[half], scale));
        }
      }
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < kTokens; ++t) {
    add_fold<Format>(tile, count, fold_activations(rows[t], columns), sums[t], totals[t]);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
