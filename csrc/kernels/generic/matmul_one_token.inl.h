// One token with a tile of rows. Codes meet the activations as they are unpacked, so they never go
// through memory, and the sums of a tile's rows stay in registers from the first column to the
// last.
//
// The file that includes this one has included its level's one_token_<level>.inl.h, which brings
// the code unit (code_unit.inl.h) and
//
//   FoldTile    d and dmin of each row, `bytes` with the integer scales and minima, and products
//               where matmul_tile.inl.h has codes
//   begin_fold(x, tile)                  the activations of the fold that is unpacked next
//   store_codes<Format>(unit, index, tile)   multiplies columns 8 * index .. 8 * index + 7; of a
//                                        span the first unit comes first, the last one last, and
//                                        both after the scales
//   widen_scales<Format>(columns, tile)  after unpacking: from tile.bytes
//   RowTotals, zero_totals()             a float for each row
//   finish_fold<Format>(tile, columns, x, totals)   the totals with the fold added
//   store_totals(totals, to)             kTileRows floats
#pragma once

#include "kernels/generic/fold.inl.h"

namespace edgemoe::kernels {
namespace {

inline constexpr bool kOneToken = true;

template <class Format, class Unpack>
void multiply_tile(const MatmulArgs& args, const TileRows& rows, size_t fold_columns,
                   const Unpack& unpack) noexcept {
  const TokenRow row = token_row(args, 0);
  RowTotals totals = zero_totals();
  FoldTile tile;
  for (size_t column = 0; column < args.columns; column += fold_columns) {
    const FoldColumns columns{column, fold_columns, column / activation_columns<Format>(args)};
    const FoldActivations x = fold_activations(row, columns);
    begin_fold(x, tile);
    unpack(column, tile);
    totals = finish_fold<Format>(tile, fold_columns, x, totals);
  }
  alignas(64) float out[kTileRows];
  store_totals(totals, out);
  __builtin_memcpy(args.out + rows.first, out, rows.count * sizeof(float));
}

}  // namespace
}  // namespace edgemoe::kernels
