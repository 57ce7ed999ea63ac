// What both halves of attention share: ranges of positions, rows of keys or values, and their
// conversion to floats, which pays when several tiles of queries use the same rows.
#pragma once

#include "kernels/generic/elements.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

// Queries whose sums fit the registers together.
inline constexpr size_t kQueryTile = kFloatTileTokens;

// Positions [begin, end).
struct Range {
  size_t begin;
  size_t end;
};

inline size_t smaller_of(size_t a, size_t b) noexcept {
  return a < b ? a : b;
}
inline size_t larger_of(size_t a, size_t b) noexcept {
  return a > b ? a : b;
}
inline bool is_empty(const Range& range) noexcept {
  return range.begin >= range.end;
}

// The positions of a query within `bounds`.
inline Range positions_of(const AttendQuery& query, const Range& bounds) noexcept {
  return {larger_of(query.begin, bounds.begin), smaller_of(query.end, bounds.end)};
}

// From the first to the last position of `count` queries.
inline Range reach_of(const AttendQuery* queries, size_t count) noexcept {
  Range reach{queries[0].begin, queries[0].end};
  for (size_t q = 1; q < count; ++q) {
    reach.begin = smaller_of(reach.begin, queries[q].begin);
    reach.end = larger_of(reach.end, queries[q].end);
  }
  return reach;
}

// Rows of the positions `range`, one after another.
struct PositionRows {
  const std::byte* first;
  size_t stride;   // bytes
  size_t columns;  // elements
  Range range;

  const std::byte* row(size_t position) const noexcept {
    return first + (position - range.begin) * stride;
  }
};

// Scores of a block, then weights: those of query q begin at q * kAttentionBlock, that of position
// p is at p % kAttentionBlock.
struct BlockScores {
  alignas(64) float values[kMaxAttendQueries * kAttentionBlock];

  float* of(size_t query, size_t position) noexcept {
    return values + query * kAttentionBlock + position % kAttentionBlock;
  }
};

// Small enough to stay in the first-level cache beside the queries that meet it.
inline constexpr size_t kConvertedFloats = 4096;
struct ConvertedRows {
  alignas(64) float values[kConvertedFloats];
};

template <class Element>
inline constexpr bool kIsFloat = false;
template <>
inline constexpr bool kIsFloat<F32Element> = true;

// Columns [column, column + columns) of `rows`, converted. Requires: they fit.
template <class Element>
PositionRows convert(const PositionRows& rows, size_t column, size_t columns,
                     ConvertedRows& to) noexcept {
  for (size_t p = rows.range.begin; p < rows.range.end; ++p) {
    const std::byte* from = rows.row(p);
    float* out = to.values + (p - rows.range.begin) * columns;
    size_t i = 0;
    for (; i + kLanes <= columns; i += kLanes) store(Element::load(from, column + i), out + i);
    if (i < columns) {
      store_floats(Element::load_partial(from, column + i, columns - i), out + i, columns - i);
    }
  }
  return {reinterpret_cast<const std::byte*>(to.values), columns * sizeof(float), columns,
          rows.range};
}

}  // namespace
}  // namespace edgemoe::kernels
