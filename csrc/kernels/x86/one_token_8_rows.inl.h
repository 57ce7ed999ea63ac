// One token with a tile of 8 rows (see generic/matmul_one_token.inl.h). The file that includes this
// one last has defined
//
//   kTileBias<Format>            what the codes carry
//   RowSums, zero_sums()         integer sums of 8 rows
//   first_products<Format>(x_sums, span)            what the products of a span begin with
//   add_unit<Format>(unit, values, sums)            adds codes * activations of 8 columns
//   add_scaled<Format>(products, scale_bytes, sums)  adds the products of a span times its scales
//   unscaled<Format>(products)   the products where every scale is 1
//   joined(sums)                 one 32-bit lane a row
#pragma once

#include "kernels/generic/code_unit.inl.h"

namespace edgemoe::kernels {
namespace {

// Spans are apart until their scales are known.
struct TileCodes {
  RowSums products[kMaxSpans];
  RowSums sums;
  const int8_t* values;
  const int16_t* value_sums;
};

template <class Format>
void meet_scales(const int8_t* rows, size_t span, TileCodes& codes) noexcept {
  add_scaled<Format>(codes.products[span], rows, codes.sums);
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/fold_8_rows.inl.h"  // needs the above

namespace edgemoe::kernels {
namespace {

using RowTotals = __m256;

inline RowTotals zero_totals() noexcept {
  return _mm256_setzero_ps();
}

inline void store_totals(RowTotals totals, float* to) noexcept {
  _mm256_store_ps(to, totals);
}

inline void begin_fold(const FoldActivations& x, FoldTile& tile) noexcept {
  tile.codes.sums = zero_sums();
  tile.codes.values = x.codes;
  tile.codes.value_sums = x.sums;
}

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
  constexpr size_t kUnitsOfSpan = Format::kSpan / kUnitColumns;
  const size_t span = index / kUnitsOfSpan;
  RowSums& products = tile.codes.products[span];
  if (index % kUnitsOfSpan == 0) {
    products = first_products<Format>(tile.codes.value_sums, span);
  }
  add_unit<Format>(unit, tile.codes.values + index * kUnitColumns, products);
}

template <class Format>
RowTotals finish_fold(const FoldTile& tile, size_t columns, const FoldActivations& x,
                      RowTotals totals) noexcept {
  const RowSums sums = Format::kScaled ? tile.codes.sums : unscaled<Format>(tile.codes.products[0]);
  return add_fold<Format>(tile, columns, x, joined(sums), totals);
}

}  // namespace
}  // namespace edgemoe::kernels
