// The products of the NEON level (ARMv8.0): 16-bit products of a row's 8 columns, added over the
// units of a span as far as 16 bits reach, then widened to four 32-bit parts a row.
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
inline constexpr size_t kTileTokens = 1;

// A 16-bit lane holds the products of so many units: |code * activation| <= kMaxCode * 127.
template <class Format>
inline constexpr size_t kUnitsPerSum = Format::kMaxCode <= 64 ? 4 : 2;

struct RowParts {
  int32x4_t row[kTileRows];
};

template <size_t kUnits>
void add_units(const FoldTile& tile, size_t unit, const int8_t* values, RowParts& parts) noexcept {
  int16x8_t products[kTileRows];
#pragma GCC unroll 4
  for (size_t k = 0; k < kUnits; ++k) {
    const int8x8_t x = vld1_s8(values + k * kUnitColumns);
#pragma GCC unroll 4
    for (size_t i = 0; i < kUnitVectors; ++i) {
      const int8x16_t codes = load_codes(tile, unit + k, i);
      const int8x8_t low = vget_low_s8(codes);
      const int8x8_t high = vget_high_s8(codes);
      products[2 * i] = k == 0 ? vmull_s8(low, x) : vmlal_s8(products[2 * i], low, x);
      products[2 * i + 1] = k == 0 ? vmull_s8(high, x) : vmlal_s8(products[2 * i + 1], high, x);
    }
  }
#pragma GCC unroll 8
  for (size_t row = 0; row < kTileRows; ++row) {
    parts.row[row] = vpadalq_s16(parts.row[row], products[row]);
  }
}

inline RowParts zero_parts() noexcept {
  RowParts zero;
  for (int32x4_t& row : zero.row) row = vdupq_n_s32(0);
  return zero;
}

inline int32x4_t joined(const int32x4_t* rows) noexcept {
  return vpaddq_s32(vpaddq_s32(rows[0], rows[1]), vpaddq_s32(rows[2], rows[3]));
}

inline void add_scaled_parts(const RowParts& products, const int32_t* scale,
                             RowParts& sums) noexcept {
  const RowSums factor = load_rows(scale);
  sums.row[0] = vmlaq_laneq_s32(sums.row[0], products.row[0], factor.low, 0);
  sums.row[1] = vmlaq_laneq_s32(sums.row[1], products.row[1], factor.low, 1);
  sums.row[2] = vmlaq_laneq_s32(sums.row[2], products.row[2], factor.low, 2);
  sums.row[3] = vmlaq_laneq_s32(sums.row[3], products.row[3], factor.low, 3);
  sums.row[4] = vmlaq_laneq_s32(sums.row[4], products.row[4], factor.high, 0);
  sums.row[5] = vmlaq_laneq_s32(sums.row[5], products.row[5], factor.high, 1);
  sums.row[6] = vmlaq_laneq_s32(sums.row[6], products.row[6], factor.high, 2);
  sums.row[7] = vmlaq_laneq_s32(sums.row[7], products.row[7], factor.high, 3);
}

template <class Format, size_t kTokens>
void multiply_fold(const FoldTile& tile, const FoldColumns& columns, const TokenRow* rows,
                   float (*totals)[kTileRows]) noexcept {
  static_assert(kTokens == 1);
  constexpr size_t kUnits = Format::kSpan / kUnitColumns;
  constexpr size_t kUnitsOfSum = kUnits < kUnitsPerSum<Format> ? kUnits : kUnitsPerSum<Format>;
  const size_t count = Format::kColumns != 0 ? Format::kColumns : columns.count;
  const int8_t* values = rows[0].codes + columns.first;
  RowParts sums = zero_parts();
  for (size_t span = 0; span < count / Format::kSpan; ++span) {
    RowParts products = zero_parts();
#pragma GCC unroll 2
    for (size_t unit = span * kUnits; unit < (span + 1) * kUnits; unit += kUnitsOfSum) {
      add_units<kUnitsOfSum>(tile, unit, values + unit * kUnitColumns, products);
    }
    if constexpr (Format::kScaled) {
      add_scaled_parts(products, tile.scale[span], sums);
    } else {  // the only span
      sums = products;
    }
  }
  add_fold<Format>(tile, count, fold_activations(rows[0], columns),
                   {joined(sums.row), joined(sums.row + 4)}, totals[0]);
}

}  // namespace
}  // namespace edgemoe::kernels
