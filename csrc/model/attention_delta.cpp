// Gated delta net (Yang et al., arXiv 2412.06464): each value head keeps a matrix that maps keys to
// values. A row lets it decay, corrects what it gives for the row's key towards the row's value,
// and reads it with the row's query. Queries, keys and values pass a causal convolution first.
#include <cmath>

#include "base/portable_math.h"
#include "model/attention.h"
#include "model/attention_convolution.h"
#include "model/linear_recurrence.h"
#include "model/recurrent_state.h"

namespace edgemoe {
namespace {

// Arrays of all rows of the step, one after another in work.projected.
struct Arrays {
  float* mixed;  // [rows][queries | keys | values]
  float* gates;  // [rows][num_heads * value_size], multiply the result
  float* raw;    // [rows][2 * num_heads]: of rate and decay, as projected
  float* rate;   // [rows][num_heads]
  float* decay;  // [rows][num_heads]
  size_t mixed_size;
  size_t value_width;
};

Arrays arrays_of(const StepContext& step, const AttentionSpec& attention) {
  const size_t rows = step.rows.size();
  Arrays arrays;
  arrays.mixed_size = convolution_channels(attention, step.spec.width);
  arrays.value_width = size_t{attention.num_heads} * attention.value_size;
  arrays.mixed = step.work.projected;
  arrays.gates = arrays.mixed + rows * arrays.mixed_size;
  arrays.raw = arrays.gates + rows * arrays.value_width;
  arrays.rate = arrays.raw + rows * 2 * attention.num_heads;
  arrays.decay = arrays.rate + rows * attention.num_heads;
  return arrays;
}

void project(StepContext& step, uint32_t layer, const Arrays& arrays) {
  const LayerWeights& weights = step.weights.layer(layer);
  const size_t heads = step.spec.layers[layer].attention.num_heads;
  Workspace& work = step.work;
  work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  const auto part = [&](const MatrixView& matrix, float* out, size_t stride) {
    return step.compute.product_of(matrix, nullptr, work.width_rows, out, stride);
  };
  Product parts[] = {part(weights.qkv, arrays.mixed, arrays.mixed_size),
                     part(weights.attention_gate, arrays.gates, arrays.value_width),
                     {},
                     {}};
  if (weights.rate_decay) {
    parts[2] = part(weights.rate_decay, arrays.raw, 2 * heads);
    return step.compute.multiply({parts, 3});
  }
  parts[2] = part(weights.rate, arrays.raw, 2 * heads);
  parts[3] = part(weights.decay, arrays.raw + heads, 2 * heads);
  step.compute.multiply(parts);
}

// Place of a value head's rate among the row's raw gates; its decay is `step` places behind. The
// one fused matrix gives them key head by key head.
struct GatePlace {
  size_t rate;
  size_t step;
};
GatePlace gate_place(const LayerWeights& weights, const AttentionSpec& attention, size_t head) {
  if (!weights.rate_decay) return {head, attention.num_heads};
  const size_t group = attention.num_heads / attention.num_kv_heads;
  return {head / group * 2 * group + head % group, group};
}

// rate = sigmoid(raw); decay = exp(softplus(raw + bias) * coefficient), the coefficient negative.
void finish_gates(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t row) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  const float* raw = arrays.raw + row * 2 * attention.num_heads;
  float* rate = arrays.rate + row * attention.num_heads;
  float* decay = arrays.decay + row * attention.num_heads;
  for (size_t head = 0; head < attention.num_heads; ++head) {
    const GatePlace place = gate_place(weights, attention, head);
    rate[head] = raw[place.rate];
    const double x = static_cast<double>(raw[place.rate + place.step] + weights.decay_bias[head]);
    const double exponent =
        portable_softplus(x) * static_cast<double>(weights.decay_coefficient[head]);
    decay[head] = decay_of(exponent);
  }
  step.compute.table().sigmoid(rate, attention.num_heads);
}

// Queries and keys have length 1; queries are scaled by the root of their size besides.
void norm_keys(const StepContext& step, const AttentionSpec& attention, float* mixed) {
  const kernels::KernelTable& table = step.compute.table();
  const size_t size = attention.key_size;
  const float root = 1.0f / std::sqrt(static_cast<float>(size));
  const float epsilon = step.spec.norm_epsilon / static_cast<float>(size);
  for (size_t head = 0; head < size_t{2} * attention.num_kv_heads; ++head) {
    float* x = mixed + head * size;
    table.rms_norm(x, nullptr, nullptr, size, epsilon, x);
    table.scale(head < attention.num_kv_heads ? root * root : root, size, x);
  }
}

void finish_row(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t row) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const kernels::KernelTable& table = step.compute.table();
  const size_t size = attention.value_size;
  float* out = step.work.attended + row * arrays.value_width;
  for (size_t head = 0; head < attention.num_heads; ++head) {
    table.rms_norm(out + head * size, step.weights.layer(layer).state_norm, nullptr, size,
                   step.spec.norm_epsilon, out + head * size);
  }
  table.gated_activation(kernels::Activation::kSilu, arrays.gates + row * arrays.value_width, out,
                         arrays.value_width, 0, out);
}

}  // namespace

void attend_delta(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const Arrays arrays = arrays_of(step, attention);
  ThreadPool& pool = step.compute.pool();
  const size_t rows = step.rows.size();
  project(step, layer, arrays);
  convolve_rows(step, layer, arrays.mixed, arrays.mixed_size, true);
  pool.parallel_for(rows, [&](size_t row, size_t) {
    finish_gates(step, layer, arrays, row);
    norm_keys(step, attention, arrays.mixed + row * arrays.mixed_size);
  });
  RecurrenceRows recurrence;
  recurrence.queries = arrays.mixed;
  recurrence.keys = arrays.mixed + size_t{attention.num_kv_heads} * attention.key_size;
  recurrence.values = arrays.mixed + arrays.mixed_size - arrays.value_width;
  recurrence.stride = arrays.mixed_size;
  recurrence.rate = arrays.rate;
  recurrence.decay = arrays.decay;
  recurrence.corrects = true;
  recur_heads(step, layer, recurrence);
  pool.parallel_for(rows, [&](size_t row, size_t) { finish_row(step, layer, arrays, row); });
  project_attended(step, layer, arrays.value_width);
}

}  // namespace edgemoe
