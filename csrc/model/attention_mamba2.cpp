// Mamba-2 (Dao and Gu, arXiv 2405.21060): each head keeps a matrix that decays and takes in the
// row's value under the row's key (B in the paper); the row's query (C) reads it. Keys and queries
// are shared by groups of heads; all three pass a causal convolution first.
#include "base/portable_math.h"
#include "model/attention.h"
#include "model/attention_convolution.h"
#include "model/linear_recurrence.h"
#include "model/recurrent_state.h"

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
  RecurrenceRows recurrence;
  recurrence.values = arrays.rows + arrays.value_width;
  recurrence.keys = recurrence.values + arrays.value_width;
  recurrence.queries = recurrence.keys + arrays.key_width;
  recurrence.stride = arrays.stride;
  recurrence.rate = arrays.rate;
  recurrence.decay = arrays.decay;
  recur_heads(step, layer, recurrence);
  pool.parallel_for(rows, [&](size_t row, size_t) { finish_row(step, layer, arrays, row); });
  project_attended(step, layer, arrays.value_width);
}

}  // namespace edgemoe
