// A tile of 8 rows, 8 columns of a row in each 64-bit lane, and what surrounds its integer
// products: scales, minima and the sums of floats, one 32-bit lane a row. The file that includes
// this one last has defined
//
//   kTileBias<Format>          what the codes carry
//   TileCodes                  the codes of the tile, or their products with one token
//   meet_scales<Format>(bytes, span, codes)   takes the scales of a span, a byte for each row
#pragma once

#include "kernels/generic/fold.inl.h"

namespace edgemoe::kernels {
namespace {

struct alignas(64) FoldTile {
  TileCodes codes;
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

inline __m256i load_lanes(const void* lanes) noexcept {
  return _mm256_load_si256(static_cast<const __m256i*>(lanes));
}

inline __m256i widened_rows(const int8_t* rows) noexcept {
  return _mm256_cvtepi8_epi32(_mm_loadu_si64(rows));
}

// Factors of sub-blocks 2i and 2i + 1: those of one span of 32 columns or of two of 16.
template <size_t kSpan>
void store_pairs(const int8_t* bytes, size_t columns, uint32_t (*pairs)[kTileRows]) noexcept {
  constexpr int kHighHalves = 0xAA;
  const size_t num_pairs = columns / 32;
#pragma GCC unroll 8
  for (size_t i = 0; i < num_pairs; ++i) {
    const __m256i first = widened_rows(bytes + (kSpan == 32 ? i : 2 * i) * kRowGroup);
    const __m256i second = kSpan == 32 ? first : widened_rows(bytes + (2 * i + 1) * kRowGroup);
    store_lanes(pairs[i], _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), kHighHalves));
  }
  if (columns == kSubBlock) store_lanes(pairs[0], widened_rows(bytes));
}

template <class Format>
void widen_scales(size_t columns, FoldTile& tile) noexcept {
  if constexpr (Format::kScaled) {
    const size_t num_spans = columns / Format::kSpan;
#pragma GCC unroll 16
    for (size_t span = 0; span < num_spans; ++span) {
      meet_scales<Format>(tile.bytes.scale[0] + span * kRowGroup, span, tile.codes);
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

// sum over sub-blocks of factor * (sum of the activations), one factor a row and sub-block.
inline __m256i weighted_sums(const uint32_t (*factor_pair)[kTileRows], size_t columns,
                             const int16_t* sums) noexcept {
  if (columns == kSubBlock) {  // there is no second sum to read
    return _mm256_madd_epi16(load_lanes(factor_pair[0]),
                             _mm256_set1_epi32(static_cast<uint16_t>(sums[0])));
  }
  __m256i total = _mm256_setzero_si256();
  const size_t num_pairs = columns / kSubBlock / 2;
#pragma GCC unroll 8
  for (size_t pair = 0; pair < num_pairs; ++pair) {
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

}  // namespace
}  // namespace edgemoe::kernels
