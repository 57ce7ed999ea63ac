#include "model/linear_recurrence.h"

#include <algorithm>

#include "base/units.h"
#include "model/recurrent_state.h"
#include "model/sequence_runs.h"

namespace edgemoe {
namespace {

// Columns from `column` on of a head, at most kRecurrenceColumns, for all rows.
void recur_columns(const StepContext& step, uint32_t layer, const RecurrenceRows& rows, size_t head,
                   size_t column) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const size_t heads = attention.num_heads;
  const size_t key_head = attention.key_heads_take_turns ? head % attention.num_kv_heads
                                                         : head / (heads / attention.num_kv_heads);
  const size_t key = key_head * attention.key_size;
  const size_t value = head * attention.value_size;
  const size_t state =
      convolution_state_floats(attention, step.spec.width) + head * head_state_floats(attention);
  kernels::RecurrenceArgs args{};
  args.key_size = attention.key_size;
  args.value_size = attention.value_size;
  args.begin = column;
  args.end = std::min<size_t>(column + kernels::kRecurrenceColumns, attention.value_size);
  args.key_stride = rows.stride;
  args.value_stride = rows.stride;
  args.gate_stride = heads;
  args.out_stride = heads * attention.value_size;
  args.corrects = rows.corrects;
  for_each_run(step.rows, [&](size_t first, size_t count) {
    args.keys = rows.keys + first * rows.stride + key;
    args.queries = rows.queries + first * rows.stride + key;
    args.values = rows.values + first * rows.stride + value;
    args.rate = rows.rate + first * heads + head;
    args.decay = rows.decay + first * heads + head;
    args.out = step.work.attended + first * args.out_stride + value;
    args.num_rows = count;
    args.state = step.rows[first].cache->state(layer) + state;
    step.compute.table().recur(args);
  });
}

}  // namespace

void recur_heads(const StepContext& step, uint32_t layer, const RecurrenceRows& rows) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const size_t tiles = ceil_div(size_t{attention.value_size}, kernels::kRecurrenceColumns);
  step.compute.pool().parallel_for(attention.num_heads * tiles, [&](size_t item, size_t) {
    recur_columns(step, layer, rows, item / tiles, item % tiles * kernels::kRecurrenceColumns);
  });
}

}  // namespace edgemoe
