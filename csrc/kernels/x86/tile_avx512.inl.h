// The tile of the AVX-512 level: 16 rows in the 32-bit lanes of a register, 4 columns a lane.
// vpdpbusd multiplies 4 unsigned codes by 4 signed activations and adds them to the lane without
// saturation, so codes carry a bias that is taken off again through the sums of the activations:
// sum(code * x) = sum((code + bias) * x) - bias * sum(x). All of it is exact modulo 2^32.
#pragma once

#include "kernels/x86/intrinsics.inl.h"

#include "kernels/generic/fold.inl.h"
#include "quant/unpack.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kTileRows = 16;
inline constexpr size_t kTileTokens = 8;
inline constexpr size_t kLaneColumns = 4;  // codes in a 32-bit lane

struct alignas(64) FoldTile {
  uint32_t code[kMaxFold / kLaneColumns][kTileRows];  // code + bias
  int32_t scale[kMaxFold / kSubBlock][kTileRows];     // one for each kSpan columns
  // Of sub-blocks 2i and 2i + 1, as 16-bit halves; what multiplies two sums at once.
  uint32_t scale_pair[kMaxFold / kSubBlock / 2][kTileRows];  // read when kBias is not 0
  uint32_t min_pair[kMaxFold / kSubBlock / 2][kTileRows];    // read when kHasMin
  float d[kTileRows];
  float dmin[kTileRows];
};

// Any type, as scalar unpack gives it. The bias makes every int8 an unsigned byte.
template <bool kMin>
struct GenericFormat {
  static constexpr size_t kColumns = 0;  // only known when the program runs
  static constexpr size_t kSpan = kSubBlock;
  static constexpr int kBias = 128;
  static constexpr bool kScaled = true;
  static constexpr bool kHasMin = kMin;
};

inline uint32_t int16_pair(int low, int high) noexcept {
  return (static_cast<uint32_t>(low) & 0xFFFFu) | (static_cast<uint32_t>(high) << 16);
}

inline void set_row(const UnpackedFold& fold, size_t columns, size_t row, FoldTile& tile) noexcept {
  constexpr uint32_t kBiasInEachByte = 0x80808080u;
  for (size_t lane = 0; lane < columns / kLaneColumns; ++lane) {
    uint32_t codes;
    __builtin_memcpy(&codes, fold.code + lane * kLaneColumns, sizeof(codes));
    tile.code[lane][row] = codes ^ kBiasInEachByte;
  }
  const size_t sub_blocks = columns / kSubBlock;
  for (size_t s = 0; s < sub_blocks; ++s) tile.scale[s][row] = fold.scale[s];
  for (size_t s = 0; s < sub_blocks; s += 2) {
    const bool pair = s + 1 < sub_blocks;  // a fold may be a single sub-block
    tile.scale_pair[s / 2][row] = int16_pair(fold.scale[s], pair ? fold.scale[s + 1] : 0);
    tile.min_pair[s / 2][row] = int16_pair(fold.min[s], pair ? fold.min[s + 1] : 0);
  }
  tile.d[row] = fold.d;
  tile.dmin[row] = fold.dmin;
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
  if constexpr (Format::kBias == 0) {
    return sum;
  } else if constexpr (Format::kScaled) {
    const __m512i offset = weighted_sums(tile.scale_pair, columns, x_sums);
    return _mm512_sub_epi32(sum, _mm512_mullo_epi32(offset, _mm512_set1_epi32(Format::kBias)));
  } else {  // 32 columns, every scale 1
    return _mm512_dpwssd_epi32(sum, _mm512_set1_epi16(-Format::kBias), broadcast_4_bytes(x_sums));
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
  if constexpr (Format::kHasMin) {
    const __m512i offset = weighted_sums(tile.min_pair, columns, x.sums);
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
