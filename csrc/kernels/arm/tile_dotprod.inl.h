// The products of the dotprod level: sdot multiplies the 4 columns of each of 4 rows with 4
// activations, a lane of the register that holds 16 of them.
#pragma once

#include <cstddef>

namespace edgemoe::kernels {
namespace {
inline constexpr bool kSplitColumns = true;
}
}  // namespace edgemoe::kernels

#include "kernels/arm/fold_neon.inl.h"  // needs the above

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr size_t kTileTokens = 4;

// 16 columns of 8 rows: parts 0 and 1 of a unit are columns 0..3, parts 2 and 3 columns 4..7.
struct SixteenColumns {
  int8x16_t part[2 * kUnitVectors];
};

inline SixteenColumns load_columns(const FoldTile& tile, size_t unit) noexcept {
  SixteenColumns out;
#pragma GCC unroll 8
  for (size_t i = 0; i < 2 * kUnitVectors; ++i) {
    out.part[i] = load_codes(tile, unit + i / kUnitVectors, i % kUnitVectors);
  }
  return out;
}

inline void add_products(const SixteenColumns& codes, int8x16_t x, RowSums& products) noexcept {
  products.low = vdotq_laneq_s32(products.low, codes.part[0], x, 0);
  products.high = vdotq_laneq_s32(products.high, codes.part[1], x, 0);
  products.low = vdotq_laneq_s32(products.low, codes.part[2], x, 1);
  products.high = vdotq_laneq_s32(products.high, codes.part[3], x, 1);
  products.low = vdotq_laneq_s32(products.low, codes.part[4], x, 2);
  products.high = vdotq_laneq_s32(products.high, codes.part[5], x, 2);
  products.low = vdotq_laneq_s32(products.low, codes.part[6], x, 3);
  products.high = vdotq_laneq_s32(products.high, codes.part[7], x, 3);
}

// Always inline: the sums stay in registers from span to span.
template <class Format, size_t kTokens>
[[gnu::always_inline]] inline void multiply_span(const FoldTile& tile, size_t span,
                                                 const int8_t* const* values,
                                                 RowSums* sums) noexcept {
  RowSums products[kTokens];
  for (RowSums& zero : products) zero = {vdupq_n_s32(0), vdupq_n_s32(0)};
#pragma GCC unroll 2
  for (size_t column = span * Format::kSpan; column < (span + 1) * Format::kSpan; column += 16) {
    const SixteenColumns codes = load_columns(tile, column / kUnitColumns);
#pragma GCC unroll 4
    for (size_t t = 0; t < kTokens; ++t) {
      add_products(codes, vld1q_s8(values[t] + column), products[t]);
    }
  }
  const RowSums scale = load_rows(tile.scale[span]);
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    if constexpr (Format::kScaled) {
      sums[t].low = vmlaq_s32(sums[t].low, products[t].low, scale.low);
      sums[t].high = vmlaq_s32(sums[t].high, products[t].high, scale.high);
    } else {  // the only span
      sums[t] = products[t];
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
    sums[t] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    values[t] = rows[t].codes + columns.first;
  }
  for (size_t span = 0; span < count / Format::kSpan; ++span) {
    multiply_span<Format, kTokens>(tile, span, values, sums);
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < kTokens; ++t) {
    add_fold<Format>(tile, count, fold_activations(rows[t], columns), sums[t], totals[t]);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
