// Many tokens with a tile of rows. A tile is one fold of kTileRows rows, unpacked to the shape that
// the level's multiply wants; up to kChunkTokens tokens meet it before the next fold is unpacked.
// Every (row, token) pair is summed on its own in column order, so neither the tile nor the chunk
// shows in the result.
//
// The file that includes this one has included its level's tile_<level>.inl.h, which brings the
// code unit (code_unit.inl.h) and
//
//   kTileTokens<Format>  tokens whose sums fit the registers together, a power of two
//   FoldTile             the unpacked fold: d and dmin of each row, `bytes` with the integer scales
//                        and minima, and codes in an order of the level's own
//   store_codes<Format>(unit, index, tile)                 columns 8 * index .. 8 * index + 7
//   widen_scales<Format>(columns, tile)                    after unpacking: from tile.bytes
//   multiply_fold<Format, kTokens>(tile, columns, rows, totals)  adds kTokens products to totals
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline constexpr bool kOneToken = false;

inline constexpr size_t kChunkTokens = 64;

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
    if (rows.count == kTileRows) {
      __builtin_memcpy(out, chunk.totals[t], sizeof(chunk.totals[t]));  // needs no call
    } else {
      __builtin_memcpy(out, chunk.totals[t], rows.count * sizeof(float));
    }
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
      const FoldColumns columns{column, fold_columns, column / activation_columns<Format>(args)};
      multiply_chunk<Format>(tile, columns, chunk, 0);
    }
    store_totals(args, chunk, rows);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
