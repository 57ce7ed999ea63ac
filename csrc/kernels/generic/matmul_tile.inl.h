// The loops of the quantised products of a vector level. A tile is one fold of kTileRows rows,
// unpacked to the shape that the level's multiply wants; up to kChunkTokens tokens meet it before
// the next fold is unpacked. Every (row, token) pair is summed on its own in column order, so
// neither the tile nor the chunk shows in the result.
//
// The file that includes this one has included its level's tile_<level>.inl.h, which brings the
// code unit (generic/code_unit.inl.h) and
//
//   kTileTokens<Format>  tokens whose sums fit the registers together, a power of two
//   FoldTile             the unpacked fold: d and dmin of each row, `bytes` with the integer scales
//                        and minima, and codes in an order of the level's own
//   store_codes<Format>(unit, index, tile)                 columns 8 * index .. 8 * index + 7
//   widen_scales<Format>(columns, tile)                    after unpacking: from tile.bytes
//   multiply_fold<Format, kTokens>(tile, columns, rows, totals)  adds kTokens products to totals
//
// A format says what lies in the tile:
//
//   kSpan      columns under one integer scale, 16 or 32; kScaled is false where all of them are 1
//   kSigned    codes are any int8, and kBias is 0; else they are unsigned, at most kMaxCode, with
//              kBias added to each of them
//   kMinimum   see fold.inl.h
//
// A packed format adds kType, kColumns (of a block, which is one fold), kBlockBytes and
// unpack(groups, tile).
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/kernel_table.h"
#include "quant/layout.h"
#include "quant/unpack.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kChunkTokens = 32;

struct TileRows {
  size_t first;
  size_t count;  // <= kTileRows
};

struct TokenChunk {
  size_t first;
  size_t count;
  TokenRow rows[kChunkTokens];
  alignas(64) float totals[kChunkTokens][kTileRows];
};

inline void begin_chunk(const MatmulArgs& args, size_t first, TokenChunk& chunk) noexcept {
  const size_t rest = args.num_tokens - first;
  chunk.first = first;
  chunk.count = rest < kChunkTokens ? rest : kChunkTokens;
  for (size_t t = 0; t < chunk.count; ++t) {
    chunk.rows[t] = token_row(args, first + t);
    for (float& total : chunk.totals[t]) total = 0.0f;
  }
}

inline void store_totals(const MatmulArgs& args, const TokenChunk& chunk,
                         const TileRows& rows) noexcept {
  for (size_t t = 0; t < chunk.count; ++t) {
    float* out = args.out + (chunk.first + t) * args.out_stride + rows.first;
    __builtin_memcpy(out, chunk.totals[t], rows.count * sizeof(float));
  }
}

// As many tokens at a time as fit the registers, then halves of that.
template <class Format, size_t kTokens = kTileTokens<Format>>
void multiply_chunk(const FoldTile& tile, const FoldColumns& columns, TokenChunk& chunk,
                    size_t token) noexcept {
  for (; token + kTokens <= chunk.count; token += kTokens) {
    multiply_fold<Format, kTokens>(tile, columns, chunk.rows + token, chunk.totals + token);
  }
  if constexpr (kTokens > 1) multiply_chunk<Format, kTokens / 2>(tile, columns, chunk, token);
}

// All tokens with the rows of one tile. unpack(column, tile) unpacks the fold that starts there.
template <class Format, class Unpack>
void multiply_tile(const MatmulArgs& args, const TileRows& rows, size_t fold_columns,
                   const Unpack& unpack) noexcept {
  FoldTile tile;
  TokenChunk chunk;
  for (size_t token = 0; token < args.num_tokens; token += kChunkTokens) {
    begin_chunk(args, token, chunk);
    for (size_t column = 0; column < args.columns; column += fold_columns) {
      unpack(column, tile);
      const FoldColumns columns{column, fold_columns, column / activation_columns(args)};
      multiply_chunk<Format>(tile, columns, chunk, 0);
    }
    store_totals(args, chunk, rows);
  }
}

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

inline void prefetch_bytes(const std::byte* from, size_t bytes) noexcept {
  for (size_t at = 0; at < bytes; at += kCacheLine) __builtin_prefetch(from + at);
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
    constexpr size_t kBytes = kTileGroups * kBlockColumnBytes;
    const size_t ahead = kTileGroups * (rows.group_bytes + offset);
    if (ahead + kBytes <= rows.readable_bytes) prefetch_bytes(rows.weights + ahead, kBytes);
    Format::unpack(packed, tile);
    widen_scales<Format>(Format::kColumns, tile);
  }
};

}  // namespace
}  // namespace edgemoe::kernels
