// The scores of one block: query . key, in tiles of queries and keys whose sums stay in registers.
#pragma once

#include "kernels/generic/attend_rows.inl.h"

namespace edgemoe::kernels {
namespace {

// Keys beside one query alone, and beside a tile of queries.
inline constexpr size_t kKeysAlone = 4;
inline constexpr size_t kKeyTile = kFloatTileRows;

template <size_t kCount>
void store_all_sums(const Lanes (&totals)[kCount], float* to) noexcept {
  if constexpr (kCount % 4 == 0) {
    for (size_t i = 0; i < kCount; i += 4) {
      const Lanes four[4] = {totals[i], totals[i + 1], totals[i + 2], totals[i + 3]};
      store_sums(four, to + i);
    }
  } else {
    for (size_t i = 0; i < kCount; ++i) to[i] = sum(totals[i]);
  }
}

// Scores of kQueries queries from `first_query` with kKeys keys from `position`. Lane l of a sum
// takes columns l, l + 16, ...
template <class Element, size_t kQueries, size_t kKeys>
void score_tile(const AttendQuery* queries, const PositionRows& keys, size_t position,
                float* scores) noexcept {
  Lanes total[kQueries * kKeys];
  for (Lanes& lanes : total) lanes = zero_lanes();
  const std::byte* first = keys.row(position);
  const auto add_columns = [&](auto load_key, auto load_query) {
    Lanes key[kKeys];
    for (size_t k = 0; k < kKeys; ++k) key[k] = load_key(first + k * keys.stride);
    for (size_t q = 0; q < kQueries; ++q) {
      const Lanes query = load_query(queries[q].query);
      for (size_t k = 0; k < kKeys; ++k) {
        Lanes& lanes = total[q * kKeys + k];
        lanes = fused_multiply_add(key[k], query, lanes);
      }
    }
  };
  size_t i = 0;
  for (; i + kLanes <= keys.columns; i += kLanes) {
    add_columns([i](const std::byte* key) { return Element::load(key, i); },
                [i](const float* query) { return load_f32(query + i); });
  }
  if (const size_t count = keys.columns - i; count > 0) {
    add_columns([=](const std::byte* key) { return Element::load_partial(key, i, count); },
                [=](const float* query) { return load_floats(query + i, count); });
  }
  float sums[kQueries * kKeys];
  store_all_sums(total, sums);
  for (size_t q = 0; q < kQueries; ++q) {
    __builtin_memcpy(scores + q * kAttentionBlock, sums + q * kKeys, kKeys * sizeof(float));
  }
}

template <class Element, size_t kQueries>
void score_queries(const AttendArgs& args, size_t query, const PositionRows& keys,
                   BlockScores& scores) noexcept {
  constexpr size_t kKeys = kQueries == 1 ? kKeysAlone : kKeyTile;
  const AttendQuery* queries = args.queries + query;
  const Range reach = reach_of(queries, kQueries);
  const size_t end = smaller_of(reach.end, keys.range.end);
  size_t p = larger_of(reach.begin, keys.range.begin);
  for (; p + kKeys <= end; p += kKeys) {
    score_tile<Element, kQueries, kKeys>(queries, keys, p, scores.of(query, p));
  }
  for (; p < end; ++p) {
    score_tile<Element, kQueries, 1>(queries, keys, p, scores.of(query, p));
  }
}

template <class Element>
void score_rows(const AttendArgs& args, const PositionRows& keys, BlockScores& scores) noexcept {
  size_t query = 0;
  for (; query + kQueryTile <= args.num_queries; query += kQueryTile) {
    score_queries<Element, kQueryTile>(args, query, keys, scores);
  }
  for (; query < args.num_queries; ++query) {
    score_queries<Element, 1>(args, query, keys, scores);
  }
}

template <class Element>
void score_block(const AttendArgs& args, const Range& block, BlockScores& scores,
                 ConvertedRows& converted) noexcept {
  const auto keys = [&](const Range& range) -> PositionRows {
    return {args.keys + range.begin * args.key_stride, args.key_stride, args.key_size, range};
  };
  const size_t step = kConvertedFloats / args.key_size / kKeysAlone * kKeysAlone;
  if (kIsFloat<Element> || args.num_queries <= kQueryTile || step == 0) {
    return score_rows<Element>(args, keys(block), scores);
  }
  for (size_t begin = block.begin; begin < block.end; begin += step) {
    const PositionRows some = keys({begin, smaller_of(begin + step, block.end)});
    score_rows<F32Element>(args, convert<Element>(some, 0, args.key_size, converted), scores);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
