// The loops of the quantised products over the rows of a vector level, in tiles of kTileRows: types
// with a packed layout through the level's own unpack, all others through the scalar one.
//
// The file that includes this one has included its level's tile (matmul_tile.inl.h and
// matmul_one_token.inl.h say what that is) and one of these two, which bring
//
//   multiply_tile<Format>(args, rows, fold_columns, unpack)
//   kOneToken                      whether it is for one token only
//
// for the tokens of args with a tile of rows; unpack(column, tile) unpacks the fold that starts
// there.
//
// A format says what lies in the tile:
//
//   kSpan      columns under one integer scale, 16 or 32; kScaled is false where all of them are 1
//   kSigned    codes are any int8, and kBias is 0; else they are unsigned, at most kMaxCode, with
//              kBias added to each of them
//   kMinimum   see fold.inl.h
//
// A packed format adds kType, kColumns (of a block, which is one fold), kBlockBytes and
// unpack(groups, tile), which is always inline: the products of one token live in the tile, and
// only so in registers.
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/kernel_table.h"
#include "quant/layout.h"
#include "quant/unpack.h"

namespace edgemoe::kernels {
namespace {

// Any type, as scalar unpack gives it.
template <bool kHasMin>
struct GenericFormat {
  static constexpr size_t kColumns = 0;  // only known when the program runs
  static constexpr size_t kSpan = kSubBlock;
  static constexpr bool kSigned = true;
  static constexpr int kBias = 0;
  static constexpr int kMaxCode = 128;
  static constexpr bool kScaled = true;
  static constexpr Minimum kMinimum = kHasMin ? Minimum::kScaled : Minimum::kNone;
};

// Integer scales and minima of a row; those of every type fit a byte.
inline void set_row_scales(const UnpackedFold& fold, size_t columns, size_t row,
                           FoldTile& tile) noexcept {
  for (size_t s = 0; s < columns / kSubBlock; ++s) {
    const size_t place = s * kRowGroup + row % kRowGroup;
    tile.bytes.scale[row / kRowGroup][place] = static_cast<int8_t>(fold.scale[s]);
    tile.bytes.min[row / kRowGroup][place] = static_cast<int8_t>(fold.min[s]);
  }
  tile.d[row] = fold.d;
  tile.dmin[row] = fold.dmin;
}

// Through the scalar unpack of the type. Rows that the tile lacks repeat the last one, for defined
// values.
template <class Format>
void unpack_generic_tile(QuantType type, const MatmulArgs& args, const TileRows& rows,
                         size_t column, FoldTile& tile) noexcept {
  const QuantTraits& quant = traits(type);
  const size_t columns = fold_elements(type);
  const size_t fold = column % quant.block_elements / columns;
  UnpackedFold unpacked[kTileRows] = {};
  for (size_t row = 0; row < kTileRows; ++row) {
    std::byte block[kMaxBlockBytes];
    extract_block(type, args.weights, args.rows, args.columns,
                  rows.first + (row < rows.count ? row : rows.count - 1),
                  column / quant.block_elements, block);
    unpack_function(type)(block, fold, unpacked[row]);
    set_row_scales(unpacked[row], columns, row, tile);
  }
  for (size_t unit = 0; unit < columns / kUnitColumns; ++unit) {
    uint64_t words[kTileRows];
    for (size_t row = 0; row < kTileRows; ++row) {
      __builtin_memcpy(&words[row], unpacked[row].code + unit * kUnitColumns, kUnitColumns);
    }
    store_codes<Format>(unit_of_words(words), unit, tile);
  }
  widen_scales<Format>(columns, tile);
}

template <bool kHasMin>
void multiply_generic_rows(QuantType type, const MatmulArgs& args, size_t first) noexcept {
  using Format = GenericFormat<kHasMin>;
  for (size_t row = first; row < args.row_end; row += kTileRows) {
    const size_t rest = args.row_end - row;
    const TileRows rows{row, rest < kTileRows ? rest : kTileRows};
    multiply_tile<Format>(args, rows, fold_elements(type),
                          [&](size_t column, FoldTile& tile) noexcept {
                            unpack_generic_tile<Format>(type, args, rows, column, tile);
                          });
  }
}

// Any quantised type, rows [first, args.row_end).
inline void multiply_generic(QuantType type, const MatmulArgs& args, size_t first) noexcept {
  if (has_min(type)) return multiply_generic_rows<true>(type, args, first);
  multiply_generic_rows<false>(type, args, first);
}

template <QuantType kType>
struct GenericProduct {
  static void multiply(const MatmulArgs& args) noexcept {
    multiply_generic(kType, args, args.row_begin);
  }
};

// A tile is read in pieces of its row groups, out of order within a block column, which hides the
// stream from the hardware's own prefetch; so the next tile is prefetched in the order of memory,
// as much of it with each block column as that has bytes.
inline constexpr size_t kCacheLine = 64;
// A burst of more lines than the first-level cache can wait for would hold up the loads behind it;
// the second level has more room.
inline constexpr size_t kFirstLevelBurst = 8 * kCacheLine;

template <size_t kBytes>
void prefetch_bytes(const std::byte* from) noexcept {
  constexpr int kLocality = kBytes <= kFirstLevelBurst ? 3 : 2;
  for (size_t at = 0; at < kBytes; at += kCacheLine) __builtin_prefetch(from + at, 0, kLocality);
}

// Types with a packed layout and an unpack of this level.
template <class Format>
class PackedProduct {
 public:
  // A last group of less than kRowGroup rows goes through the scalar unpack.
  static void multiply(const MatmulArgs& args) noexcept {
    const size_t group_bytes = args.columns / Format::kColumns * kBlockColumnBytes;
    size_t row = args.row_begin;
    while (row + kRowGroup <= args.row_end) {
      const size_t full = (args.row_end - row) / kRowGroup;
      const PackedRows rows{args.weights + row / kRowGroup * group_bytes, group_bytes,
                            full < kTileGroups ? full : kTileGroups, full * group_bytes};
      multiply_tile<Format>(args, TileRows{row, rows.groups * kRowGroup}, Format::kColumns,
                            [&rows](size_t column, FoldTile& tile) noexcept {
                              unpack(rows, column / Format::kColumns * kBlockColumnBytes, tile);
                            });
      row += rows.groups * kRowGroup;
    }
    if (row < args.row_end) multiply_generic(Format::kType, args, row);
  }

 private:
  static constexpr size_t kBlockColumnBytes = kRowGroup * Format::kBlockBytes;
  // With one token a group is a stream that hardware follows by itself, and prefetching it costs:
  // Q8_0 reads memory at 0.99 of its bandwidth without, 0.89 with it (Zen 4). Not so Q6_K: 0.29
  // without, 0.83 with it.
  static constexpr bool kPrefetches = !kOneToken || Format::kType == QuantType::kQ6_K;

  // The packed groups of a tile.
  struct PackedRows {
    const std::byte* weights;
    size_t group_bytes;
    size_t groups;
    size_t readable_bytes;  // from weights on
  };

  static void unpack(const PackedRows& rows, size_t offset, FoldTile& tile) noexcept {
    PackedGroups packed;
    for (size_t g = 0; g < kTileGroups; ++g) {
      const size_t group = g < rows.groups ? g : rows.groups - 1;
      packed.group[g] = rows.weights + group * rows.group_bytes + offset;
    }
    if constexpr (kPrefetches) {
      constexpr size_t kBytes = kTileGroups * kBlockColumnBytes;
      const size_t ahead = kTileGroups * (rows.group_bytes + offset);
      if (ahead + kBytes <= rows.readable_bytes) prefetch_bytes<kBytes>(rows.weights + ahead);
    }
    Format::unpack(packed, tile);
    widen_scales<Format>(Format::kColumns, tile);
  }
};

}  // namespace
}  // namespace edgemoe::kernels
