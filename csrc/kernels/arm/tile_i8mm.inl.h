// The products of the i8mm level: smmla multiplies 8 columns of 2 rows with 8 activations of 2
// tokens. A register of sums holds row a token a, row a token b, row b token a, row b token b.
#pragma once

#include <cstddef>

namespace edgemoe::kernels {
namespace {
inline constexpr bool kSplitColumns = false;
}
}  // namespace edgemoe::kernels

#include "kernels/arm/fold_neon.inl.h"  // needs the above

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr size_t kTileTokens = 4;

// Sums of 8 rows and 2 tokens, rows 2i and 2i + 1 in each.
struct PairSums {
  int32x4_t rows[kUnitVectors];
};

inline PairSums zero_sums() noexcept {
  PairSums zero;
  for (int32x4_t& rows : zero.rows) rows = vdupq_n_s32(0);
  return zero;
}

// 8 activations of each of two tokens; a single token meets itself.
inline int8x16_t load_pair(const int8_t* first, const int8_t* second) noexcept {
  return vcombine_s8(vld1_s8(first), vld1_s8(second));
}

// The scale of each row for both tokens.
inline PairSums load_scales(const int32_t* scale) noexcept {
  const RowSums rows = load_rows(scale);
  return {{vzip1q_s32(rows.low, rows.low), vzip2q_s32(rows.low, rows.low),
           vzip1q_s32(rows.high, rows.high), vzip2q_s32(rows.high, rows.high)}};
}

// Always inline: the sums stay in registers from span to span. values[2p] and values[2p + 1] are
// the tokens of pair p.
template <class Format, size_t kPairs>
[[gnu::always_inline]] inline void multiply_span(const FoldTile& tile, size_t span,
                                                 const int8_t* const* values,
                                                 PairSums* sums) noexcept {
  constexpr size_t kUnits = Format::kSpan / kUnitColumns;
  PairSums products[kPairs];
  for (PairSums& zero : products) zero = zero_sums();
#pragma GCC unroll 4
  for (size_t unit = span * kUnits; unit < (span + 1) * kUnits; ++unit) {
    const size_t column = unit * kUnitColumns;
#pragma GCC unroll 2
    for (size_t p = 0; p < kPairs; ++p) {
      const int8x16_t x = load_pair(values[2 * p] + column, values[2 * p + 1] + column);
#pragma GCC unroll 4
      for (size_t i = 0; i < kUnitVectors; ++i) {
        products[p].rows[i] = vmmlaq_s32(products[p].rows[i], load_codes(tile, unit, i), x);
      }
    }
  }
  if constexpr (!Format::kScaled) {  // the only span
    for (size_t p = 0; p < kPairs; ++p) sums[p] = products[p];
    return;
  }
  const PairSums scale = load_scales(tile.scale[span]);
#pragma GCC unroll 2
  for (size_t p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
    for (size_t i = 0; i < kUnitVectors; ++i) {
      sums[p].rows[i] = vmlaq_s32(sums[p].rows[i], products[p].rows[i], scale.rows[i]);
    }
  }
}

// One lane a row, of the first or the second token of a pair.
inline RowSums sums_of_token(const PairSums& sums, bool second) noexcept {
  if (second) {
    return {vuzp2q_s32(sums.rows[0], sums.rows[1]), vuzp2q_s32(sums.rows[2], sums.rows[3])};
  }
  return {vuzp1q_s32(sums.rows[0], sums.rows[1]), vuzp1q_s32(sums.rows[2], sums.rows[3])};
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  constexpr size_t kPairs = (kTokens + 1) / 2;
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  PairSums sums[kPairs];
  const int8_t* values[2 * kPairs];
  for (PairSums& zero : sums) zero = zero_sums();
#pragma GCC unroll 4
  for (size_t t = 0; t < 2 * kPairs; ++t) {
    values[t] = rows[t < kTokens ? t : kTokens - 1].codes + columns.first;
  }
  for (size_t span = 0; span < count / Format::kSpan; ++span) {
    multiply_span<Format, kPairs>(tile, span, values, sums);
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    add_fold<Format>(tile, count, fold_activations(rows[t], columns),
                     sums_of_token(sums[t / 2], t % 2 == 1), totals[t]);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
