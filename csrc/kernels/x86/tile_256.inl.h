// The products of the levels with 256-bit registers with many tokens: a tile of 8 rows in two
// registers. The file that includes this one last has included its level's products_<level>.inl.h
// and defined
//
//   kTileTokens<Format>  see generic/matmul_tile.inl.h
#pragma once

#include "kernels/x86/row_sums_256.inl.h"

namespace edgemoe::kernels {
namespace {

struct TileCodes {
  uint64_t code[kMaxFold / kUnitColumns][kTileRows];
  uint64_t scale[kMaxSpans][kTileRows];  // one for each kSpan columns
};

template <class Format>
void meet_scales(const int8_t* rows, size_t span, TileCodes& codes) noexcept {
  uint64_t* to = codes.scale[span];
  _mm256_store_si256(reinterpret_cast<__m256i*>(to), stored_scales(rows));
  _mm256_store_si256(reinterpret_cast<__m256i*>(to + 4), stored_scales(rows + 4));
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/fold_8_rows.inl.h"  // needs the above

namespace edgemoe::kernels {
namespace {

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
  store_lanes(tile.codes.code[index], stored_codes<Format>(unit.part[0]));
  store_lanes(tile.codes.code[index] + 4, stored_codes<Format>(unit.part[1]));
}

// Always inline: the sums stay in registers from span to span.
template <class Format, size_t kTokens>
[[gnu::always_inline]] inline void multiply_span(const FoldTile& tile, size_t span,
                                                 const int8_t* const* values,
                                                 RowSums* sums) noexcept {
  constexpr size_t kUnits = Format::kSpan / kUnitColumns;
  constexpr size_t kUnitsOfSum = kUnits < kUnitsPerSum<Format> ? kUnits : kUnitsPerSum<Format>;
  const __m256i low_scale = load_lanes(tile.codes.scale[span]);
  const __m256i high_scale = load_lanes(tile.codes.scale[span] + 4);
#pragma GCC unroll 4
  for (size_t first = 0; first < kUnits; first += kUnitsOfSum) {
    RowSums products[kTokens];
    for (RowSums& zero : products) zero = zero_sums();
#pragma GCC unroll 4
    for (size_t k = first; k < first + kUnitsOfSum; ++k) {
      const uint64_t* unit = tile.codes.code[span * kUnits + k];
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
    sums[t] = zero_sums();
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
