// Mamba-2 (Dao and Gu, arXiv 2405.21060): each head keeps a matrix that decays and takes in the
// row's value under the row's key (B in the paper); the row's query (C) reads it. Keys and queries
// are shared by groups of heads; all three pass a causal convolution first.
#include <algorithm>

#include "base/portable_math.h"
#include "base/units.h"
#include "model/attention.h"
#include "model/attention_convolution.h"
#include "model/recurrent_state.h"
#include "model/sequence_runs.h"

namespace edgemoe {
namespace {

// Of all rows of the step, one after another in work.projected.
struct Arrays {
  float* rows;   // [rows][stride]: gates, values, keys, queries, steps
  float* rate;   // [rows][num_heads]
  float* decay;  // [rows][num_heads]
  size_t stride;
  size_t value_width;  // of the gates, and of the values
  size_t key_width;    // of the keys, and of the queries
};

Arrays arrays_of(const StepContext& step, const AttentionSpec& attention) {
  Arrays arrays;
  arrays.value_width = size_t{attention.num_heads} * attention.value_size;
  arrays.key_width = size_t{attention.num_kv_heads} * attention.key_size;
  arrays.stride = 2 * arrays.value_width + 2 * arrays.key_width + attention.num_heads;
  arrays.rows = step.work.projected;
  arrays.rate = arrays.rows + step.rows.size() * arrays.stride;
  arrays.decay = arrays.rate + step.rows.size() * attention.num_heads;
  return arrays;
}

// rate = softplus(step + bias), decay = exp(rate * coefficient), the coefficient negative.
void finish_steps(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t row) {
  const LayerWeights& weights = step.weights.layer(layer);
  const size_t heads = step.spec.layers[layer].attention.num_heads;
  const float* raw = arrays.rows + (row + 1) * arrays.stride - heads;
  for (size_t head = 0; head < heads; ++head) {
    const double rate =
        portable_softplus(static_cast<double>(raw[head] + weights.decay_bias[head]));
    const double exponent = rate * static_cast<double>(weights.decay_coefficient[head]);
    arrays.rate[row * heads + head] = static_cast<float>(rate);
    arrays.decay[row * heads + head] = decay_of(exponent);
  }
}

// Columns from `column` on of a head, at most kRecurrenceColumns, for all rows.
void recur_columns(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t head,
                   size_t column) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const size_t group = head / (attention.num_heads / attention.num_kv_heads);
  kernels::RecurrenceArgs args{};
  args.key_size = attention.key_size;
  args.value_size = attention.value_size;
  args.begin = column;
  args.end = std::min<size_t>(column + kernels::kRecurrenceColumns, attention.value_size);
  args.key_stride = arrays.stride;
  args.value_stride = arrays.stride;
  args.gate_stride = attention.num_heads;
  args.out_stride = arrays.value_width;
  const size_t state =
      convolution_state_floats(attention, step.spec.width) + head * head_state_floats(attention);
  for_each_run(step.rows, [&](size_t first, size_t count) {
    const float* row = arrays.rows + first * arrays.stride;
    args.values = row + arrays.value_width + head * attention.value_size;
    args.keys = row + 2 * arrays.value_width + group * attention.key_size;
    args.queries = args.keys + arrays.key_width;
    args.rate = arrays.rate + first * attention.num_heads + head;
    args.decay = arrays.decay + first * attention.num_heads + head;
    args.out = step.work.attended + first * arrays.value_width + head * attention.value_size;
    args.num_rows = count;
    args.state = step.rows[first].cache->state(layer) + state;
    step.compute.table().recur(args);
  });
}

// Adds what skips the state, gates, and norms group by group.
void finish_row(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t row) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  const kernels::KernelTable& table = step.compute.table();
  const float* gates = arrays.rows + row * arrays.stride;
  const float* values = gates + arrays.value_width;
  float* out = step.work.attended + row * arrays.value_width;
  for (size_t head = 0; head < attention.num_heads; ++head) {
    const size_t first = head * attention.value_size;
    table.add_scaled(weights.skip[head], values + first, attention.value_size, out + first);
  }
  table.gated_activation(kernels::Activation::kSilu, gates, out, arrays.value_width, 0, out);
  const size_t size = arrays.value_width / attention.num_kv_heads;
  for (size_t first = 0; first < arrays.value_width; first += size) {
    table.rms_norm(out + first, weights.state_norm + first, nullptr, size, step.spec.norm_epsilon,
                   out + first);
  }
}

}  // namespace

void attend_mamba2(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const Arrays arrays = arrays_of(step, attention);
  ThreadPool& pool = step.compute.pool();
  const size_t rows = step.rows.size();
  step.work.width_rows.set(step.work.normed, rows, step.spec.width);
  step.compute.multiply(step.weights.layer(layer).recurrent_in, nullptr, step.work.width_rows,
                        arrays.rows, arrays.stride);
  convolve_rows(step, layer, arrays.rows + arrays.value_width, arrays.stride, true);
  pool.parallel_for(rows, [&](size_t row, size_t) { finish_steps(step, layer, arrays, row); });
  const size_t tiles = ceil_div(size_t{attention.value_size}, kernels::kRecurrenceColumns);
  pool.parallel_for(attention.num_heads * tiles, [&](size_t item, size_t) {
    recur_columns(step, layer, arrays, item / tiles, item % tiles * kernels::kRecurrenceColumns);
  });
  pool.parallel_for(rows, [&](size_t row, size_t) { finish_row(step, layer, arrays, row); });
  project_attended(step, layer, arrays.value_width);
}

}  // namespace edgemoe
