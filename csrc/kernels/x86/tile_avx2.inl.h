// The tile of the AVX2 level: 8 rows in two registers, 8 columns of a row in each 64-bit lane.
// vpmaddubsw multiplies unsigned by signed bytes and adds two products with saturation at 16 bits,
// so there are two ways to stay exact:
//   - small codes (kSigned false): unsigned, at most 63, with a bias that is taken off again
//   through
//     the sums of the activations. A sum of 4 products is at most 4 * 63 * 127 = 32004; 8 products
//     of codes up to 15 make 15240.
//   - any int8 code (kSigned true): |code| * (sign of the code * activation). A sum of 2 products
//   is
//     at most 2 * 128 * 127 = 32512.
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/x86/intrinsics.inl.h"
#include "quant/unpack.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kTileRows = 8;
inline constexpr size_t kTileTokens = 2;
inline constexpr size_t kLaneColumns = 8;  // codes in a 64-bit lane

struct alignas(32) FoldTile {
  uint64_t code[kMaxFold / kLaneColumns][kTileRows];  // code + bias
  // One for each kSpan columns, in each of the four 16-bit parts of a lane.
  uint64_t scale[kMaxFold / kSubBlock][kTileRows];
  // Of sub-blocks 2i and 2i + 1, as 16-bit halves; what multiplies two sums at once.
  uint32_t scale_pair[kMaxFold / kSubBlock / 2][kTileRows];  // read when kBias is not 0
  uint32_t min_pair[kMaxFold / kSubBlock / 2][kTileRows];    // read when kHasMin
  float d[kTileRows];
  float dmin[kTileRows];
};

// Any type, as scalar unpack gives it.
template <bool kMin>
struct GenericFormat {
  static constexpr size_t kColumns = 0;  // only known when the program runs
  static constexpr size_t kSpan = kSubBlock;
  static constexpr bool kSigned = true;
  static constexpr int kBias = 0;
  static constexpr bool kScaled = true;
  static constexpr bool kHasMin = kMin;
};

inline uint32_t int16_pair(int low, int high) noexcept {
  return (static_cast<uint32_t>(low) & 0xFFFFu) | (static_cast<uint32_t>(high) << 16);
}

inline void set_row(const UnpackedFold& fold, size_t columns, size_t row, FoldTile& tile) noexcept {
  for (size_t lane = 0; lane < columns / kLaneColumns; ++lane) {
    __builtin_memcpy(&tile.code[lane][row], fold.code + lane * kLaneColumns, kLaneColumns);
  }
  constexpr uint64_t kOneInEachPart = 0x0001000100010001u;
  const size_t sub_blocks = columns / kSubBlock;
  for (size_t s = 0; s < sub_blocks; ++s) {
    tile.scale[s][row] = static_cast<uint16_t>(fold.scale[s]) * kOneInEachPart;
  }
  for (size_t s = 0; s < sub_blocks; s += 2) {
    const bool pair = s + 1 < sub_blocks;  // a fold may be a single sub-block
    tile.min_pair[s / 2][row] = int16_pair(fold.min[s], pair ? fold.min[s + 1] : 0);
  }
  tile.d[row] = fold.d;
  tile.dmin[row] = fold.dmin;
}

inline __m256i load_lanes(const void* lanes) noexcept {
  return _mm256_load_si256(static_cast<const __m256i*>(lanes));
}

inline __m256i broadcast_4_bytes(const void* from) noexcept {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm256_set1_epi32(bytes);
}
inline __m256i broadcast_8_bytes(const void* from) noexcept {
  int64_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm256_set1_epi64x(bytes);
}

// Integer sums of 8 rows while columns are added: two 32-bit parts a row.
struct RowSums {
  __m256i low;   // rows 0..3
  __m256i high;  // rows 4..7
};

inline RowSums add(const RowSums& a, const RowSums& b) noexcept {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}

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

// scale * code * activation of one span and one token, kSigned false.
template <class Format>
RowSums unsigned_span(const FoldTile& tile, size_t span, const RowSums& scale,
                      const int8_t* values) noexcept {
  RowSums products{_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t k = 0; k < Format::kSpan / kLaneColumns; ++k) {
    const uint64_t* codes = tile.code[span * (Format::kSpan / kLaneColumns) + k];
    const __m256i x = broadcast_8_bytes(values + k * kLaneColumns);
    products.low = _mm256_add_epi16(products.low, _mm256_maddubs_epi16(load_lanes(codes), x));
    products.high = _mm256_add_epi16(products.high, _mm256_maddubs_epi16(load_lanes(codes + 4), x));
  }
  return {_mm256_madd_epi16(products.low, scale.low), _mm256_madd_epi16(products.high, scale.high)};
}

inline __m256i signed_products(__m256i codes, __m256i x, __m256i scale) noexcept {
  const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
  return _mm256_madd_epi16(products, scale);
}

// The same for kSigned true.
template <class Format>
RowSums signed_span(const FoldTile& tile, size_t span, const RowSums& scale,
                    const int8_t* values) noexcept {
  RowSums total{_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t k = 0; k < Format::kSpan / kLaneColumns; ++k) {
    const uint64_t* codes = tile.code[span * (Format::kSpan / kLaneColumns) + k];
    const __m256i x = broadcast_8_bytes(values + k * kLaneColumns);
    total = add(total, {signed_products(load_lanes(codes), x, scale.low),
                        signed_products(load_lanes(codes + 4), x, scale.high)});
  }
  return total;
}

template <class Format>
__m256i without_bias(const FoldTile& tile, size_t columns, const int16_t* x_sums,
                     __m256i sum) noexcept {
  if constexpr (Format::kBias == 0) {
    return sum;
  } else if constexpr (Format::kScaled) {
    const __m256i offset = weighted_sums(tile.scale_pair, columns, x_sums);
    return _mm256_sub_epi32(sum, _mm256_mullo_epi32(offset, _mm256_set1_epi32(Format::kBias)));
  } else {  // 32 columns, every scale 1
    const __m256i offset =
        _mm256_madd_epi16(_mm256_set1_epi16(Format::kBias), broadcast_4_bytes(x_sums));
    return _mm256_sub_epi32(sum, offset);
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
  if constexpr (Format::kHasMin) {
    const __m256i offset = weighted_sums(tile.min_pair, columns, x.sums);
    const __m256 dmin = _mm256_mul_ps(_mm256_load_ps(tile.dmin), scale);
    total = _mm256_fnmadd_ps(dmin, _mm256_cvtepi32_ps(offset), total);
  }
  return total;
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  RowSums sums[kTokens];
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) sums[t] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t span = 0; span < count / Format::kSpan; ++span) {
    RowSums scale{_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    if constexpr (Format::kScaled) {
      scale = {load_lanes(tile.scale[span]), load_lanes(tile.scale[span] + 4)};
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < kTokens; ++t) {
      const int8_t* values = rows[t].codes + columns.first + span * Format::kSpan;
      if constexpr (Format::kSigned) {
        sums[t] = add(sums[t], signed_span<Format>(tile, span, scale, values));
      } else {
        sums[t] = add(sums[t], unsigned_span<Format>(tile, span, scale, values));
      }
    }
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
