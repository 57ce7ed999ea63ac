#include "model/attention_queries.h"

#include <algorithm>
#include <array>

#include "base/units.h"
#include "model/attention.h"

namespace edgemoe {
namespace {

using kernels::AttendArgs;
using kernels::AttendQuery;
using kernels::kMaxAttendQueries;

// How the queries of a step are cut: an item is a tile of rows with a chunk of the heads that share
// a KV head. What an item holds is read and converted once for all of it.
struct Cut {
  size_t rows = 1;       // per item
  size_t heads = 1;      // per item
  size_t row_tiles = 1;  // of the step
  size_t chunks = 1;     // of a KV head
};

// Whole groups of heads and as many rows as go into one call, unless that leaves threads without
// work: then first rows are halved, then groups, whose keys and values are read once for each half.
Cut cut_of(const StepContext& step, const AttentionSpec& attention) {
  constexpr size_t kItemsPerThread = 2;
  constexpr size_t kLeastHeads = 4;  // the widest tile of queries
  const size_t rows = step.rows.size();
  const size_t threads = step.compute.pool().num_threads();
  const size_t wanted = threads == 1 ? 1 : threads * kItemsPerThread;
  const size_t group = attention.num_heads / attention.num_kv_heads;
  Cut cut;
  cut.heads = std::min(group, kMaxAttendQueries);
  cut.rows = std::clamp<size_t>(kMaxAttendQueries / cut.heads, 1, rows);
  const auto count_items = [&] {
    cut.row_tiles = ceil_div(rows, cut.rows);
    cut.chunks = ceil_div(group, cut.heads);
    return cut.row_tiles * cut.chunks * attention.num_kv_heads;
  };
  while (count_items() < wanted && cut.rows > 1) cut.rows = ceil_div(cut.rows, 2);
  while (count_items() < wanted && cut.heads > kLeastHeads) {
    cut.heads = std::max(ceil_div(cut.heads, 2), kLeastHeads);
  }
  return cut;
}

// Rows [first_row, last_row), which share a cache, with heads [first_head, last_head), which share
// a KV head.
struct QueryBlock {
  size_t first_row;
  size_t last_row;
  size_t first_head;
  size_t last_head;
};

const AttentionSpec& attention_of(const StepContext& step, uint32_t layer,
                                  const QueryPlaces& places) noexcept {
  const LayerSpec& spec = step.spec.layers[layer];
  return places.cross ? spec.cross : spec.attention;
}

void attend_block(const StepContext& step, uint32_t layer, const QueryPlaces& places,
                  const QueryBlock& block) {
  const AttentionSpec& attention = attention_of(step, layer, places);
  KvCache& cache = *step.rows[block.first_row].cache;
  std::array<AttendQuery, kMaxAttendQueries> queries;
  size_t num_queries = 0;
  for (size_t row = block.first_row; row < block.last_row; ++row) {
    const uint32_t position = step.rows[row].position;
    for (size_t head = block.first_head; head < block.last_head; ++head) {
      AttendQuery& query = queries[num_queries++];
      query.query = places.queries.of(row, head);
      query.out = places.results.of(row, head);
      query.sink = places.sinks == nullptr ? nullptr : places.sinks + head;
      query.begin = attention.causal ? window_begin(attention, position) : 0;
      query.end = attention.causal ? size_t{position} + 1 : cache.source_length();
      query.bias = places.cross
                       ? nullptr
                       : step.position_bias.of(layer, static_cast<uint32_t>(head), position);
    }
  }
  const uint32_t place = places.cross ? cache.cross(layer) : layer;
  const auto kv_head =
      static_cast<uint32_t>(block.first_head / (attention.num_heads / attention.num_kv_heads));
  AttendArgs args;
  args.queries = queries.data();
  args.num_queries = num_queries;
  args.keys = cache.keys(place, kv_head);
  args.values = cache.values(place, kv_head);
  args.key_stride = cache.key_stride(place);
  args.value_stride = cache.value_stride(place);
  args.key_size = attention.key_size;
  args.value_size = attention.value_size;
  args.scale = attention.scale;
  args.softcap = attention.softcap;
  args.type = cache.type();
  step.compute.table().attend(args);
}

// One kernel call for each run of rows with the same cache.
void attend_item(const StepContext& step, uint32_t layer, const QueryPlaces& places,
                 QueryBlock item) {
  const size_t end = item.last_row;
  for (; item.first_row < end; item.first_row = item.last_row) {
    const KvCache* cache = step.rows[item.first_row].cache;
    item.last_row = item.first_row + 1;
    while (item.last_row < end && step.rows[item.last_row].cache == cache) ++item.last_row;
    attend_block(step, layer, places, item);
  }
}

}  // namespace

void attend_queries(const StepContext& step, uint32_t layer, const QueryPlaces& places) {
  const AttentionSpec& attention = attention_of(step, layer, places);
  const size_t group = attention.num_heads / attention.num_kv_heads;
  const Cut cut = cut_of(step, attention);
  const size_t items_per_tile = cut.chunks * attention.num_kv_heads;
  step.compute.pool().parallel_for(cut.row_tiles * items_per_tile, [&](size_t item, size_t) {
    // The last rows see the most positions: they go first, so that threads end together.
    const size_t tile = cut.row_tiles - 1 - item / items_per_tile;
    const size_t chunk = item % cut.chunks;
    const size_t kv_head = item % items_per_tile / cut.chunks;
    QueryBlock block;
    block.first_row = tile * cut.rows;
    block.last_row = std::min(block.first_row + cut.rows, step.rows.size());
    block.first_head = kv_head * group + chunk * cut.heads;
    block.last_head = std::min(block.first_head + cut.heads, (kv_head + 1) * group);
    attend_item(step, layer, places, block);
  });
}

}  // namespace edgemoe
