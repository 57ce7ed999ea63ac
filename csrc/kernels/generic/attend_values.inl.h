// out += weight * value over the positions of one block, in position order, in tiles of queries and
// columns whose sums stay in registers.
#pragma once

#include "kernels/generic/attend_rows.inl.h"

namespace edgemoe::kernels {
namespace {

// Groups of 16 columns beside one query alone, and beside a tile of queries.
inline constexpr size_t kGroupsAlone = 2 * kFloatTileRows < 4 ? 4 : 2 * kFloatTileRows;
inline constexpr size_t kGroupTile = kFloatTileRows;

// Some positions and some columns of the values, with what they are folded into: weights and
// outputs of as many queries as a function folds together. Outputs begin at the first column.
struct ValueFold {
  PositionRows values;
  const float* weights[kQueryTile];  // of values.range.begin and on
  float* out[kQueryTile];
};

template <class Element, size_t kQueries, size_t kGroups>
void fold_columns(const ValueFold& fold, size_t column) noexcept {
  Lanes total[kQueries][kGroups];
  for (size_t q = 0; q < kQueries; ++q) {
    for (size_t g = 0; g < kGroups; ++g) {
      total[q][g] = load_f32(fold.out[q] + column + g * kLanes);
    }
  }
  const size_t count = fold.values.range.end - fold.values.range.begin;
  const std::byte* row = fold.values.first;
  for (size_t i = 0; i < count; ++i, row += fold.values.stride) {
    Lanes value[kGroups];
    for (size_t g = 0; g < kGroups; ++g) value[g] = Element::load(row, column + g * kLanes);
    for (size_t q = 0; q < kQueries; ++q) {
      const Lanes weight = splat(fold.weights[q][i]);
      for (size_t g = 0; g < kGroups; ++g) {
        total[q][g] = fused_multiply_add(weight, value[g], total[q][g]);
      }
    }
  }
  for (size_t q = 0; q < kQueries; ++q) {
    for (size_t g = 0; g < kGroups; ++g) {
      store(total[q][g], fold.out[q] + column + g * kLanes);
    }
  }
}

// The columns behind the last whole group.
template <class Element, size_t kQueries>
void fold_last_columns(const ValueFold& fold, size_t column) noexcept {
  const PositionRows& values = fold.values;
  const size_t count = values.columns - column;
  for (size_t q = 0; q < kQueries; ++q) {
    Lanes total = load_floats(fold.out[q] + column, count);
    for (size_t p = values.range.begin; p < values.range.end; ++p) {
      total = fused_multiply_add(splat(fold.weights[q][p - values.range.begin]),
                                 Element::load_partial(values.row(p), column, count), total);
    }
    store_floats(total, fold.out[q] + column, count);
  }
}

template <class Element, size_t kQueries>
void fold_values(const ValueFold& fold) noexcept {
  constexpr size_t kGroups = kQueries == 1 ? kGroupsAlone : kGroupTile;
  const size_t columns = fold.values.columns;
  size_t column = 0;
  for (; column + kGroups * kLanes <= columns; column += kGroups * kLanes) {
    fold_columns<Element, kQueries, kGroups>(fold, column);
  }
  for (; column + kLanes <= columns; column += kLanes) {
    fold_columns<Element, kQueries, 1>(fold, column);
  }
  if (column < columns) fold_last_columns<Element, kQueries>(fold, column);
}

// Columns of a block's values that begin at `column` of the outputs.
struct ValueColumns {
  PositionRows values;
  size_t column;
};

// The positions `range` for kQueries queries from `query`.
template <class Element, size_t kQueries>
void fold_range(const AttendArgs& args, size_t query, const ValueColumns& columns,
                const Range& range, BlockScores& weights) noexcept {
  if (is_empty(range)) return;
  ValueFold fold;
  fold.values = columns.values;
  fold.values.first = columns.values.row(range.begin);
  fold.values.range = range;
  for (size_t q = 0; q < kQueries; ++q) {
    fold.weights[q] = weights.of(query + q, range.begin);
    fold.out[q] = args.queries[query + q].out + columns.column;
  }
  fold_values<Element, kQueries>(fold);
}

// A tile of queries: the positions that all see together, those before and behind one by one.
template <class Element>
void fold_tile(const AttendArgs& args, size_t query, const ValueColumns& columns,
               BlockScores& weights) noexcept {
  const Range& block = columns.values.range;
  Range shared = block;
  for (size_t q = query; q < query + kQueryTile; ++q) {
    shared = positions_of(args.queries[q], shared);
  }
  if (is_empty(shared)) shared = {block.end, block.end};
  const auto fold_alone = [&](const Range& bounds) {
    for (size_t q = query; q < query + kQueryTile; ++q) {
      fold_range<Element, 1>(args, q, columns, positions_of(args.queries[q], bounds), weights);
    }
  };
  fold_alone({block.begin, shared.begin});
  fold_range<Element, kQueryTile>(args, query, columns, shared, weights);
  fold_alone({shared.end, block.end});
}

template <class Element>
void fold_rows(const AttendArgs& args, const ValueColumns& columns, BlockScores& weights) noexcept {
  size_t query = 0;
  for (; query + kQueryTile <= args.num_queries; query += kQueryTile) {
    fold_tile<Element>(args, query, columns, weights);
  }
  for (; query < args.num_queries; ++query) {
    const Range range = positions_of(args.queries[query], columns.values.range);
    fold_range<Element, 1>(args, query, columns, range, weights);
  }
}

template <class Element>
void fold_block(const AttendArgs& args, const Range& block, BlockScores& weights,
                ConvertedRows& converted) noexcept {
  const PositionRows values = {args.values + block.begin * args.value_stride, args.value_stride,
                               args.value_size, block};
  if (kIsFloat<Element> || args.num_queries <= kQueryTile) {
    return fold_rows<Element>(args, {values, 0}, weights);
  }
  constexpr size_t kStep = kConvertedFloats / kAttentionBlock;
  for (size_t column = 0; column < args.value_size; column += kStep) {
    const size_t count = smaller_of(kStep, args.value_size - column);
    const PositionRows some = convert<Element>(values, column, count, converted);
    fold_rows<F32Element>(args, {some, column}, weights);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
