// Mamba (Gu and Dao, arXiv 2312.00752), with the norms of Jamba: each channel keeps a state of its
// own. How fast it decays and takes in, and what it takes in and gives, is computed from the row.
#include <algorithm>
#include <cstring>

#include "base/portable_math.h"
#include "base/units.h"
#include "model/attention.h"
#include "model/attention_convolution.h"
#include "model/recurrent_state.h"
#include "model/sequence_runs.h"

namespace edgemoe {
namespace {

constexpr size_t kItemChannels = 64;

// Arrays of all rows of the step, one after another in work.projected.
struct Arrays {
  float* rows;   // [rows][values | gates]
  float* rates;  // [rows][channels]
  float* mixed;  // [rows][rate_rank | keys | queries]
  float* low;    // [rows][rate_rank]
  size_t channels;
  size_t mixed_size;
};

Arrays arrays_of(const StepContext& step, const AttentionSpec& attention) {
  const size_t rows = step.rows.size();
  Arrays arrays;
  arrays.channels = attention.value_size;
  arrays.mixed_size = attention.rate_rank + size_t{2} * attention.key_size;
  arrays.rows = step.work.projected;
  arrays.rates = arrays.rows + rows * 2 * arrays.channels;
  arrays.mixed = arrays.rates + rows * arrays.channels;
  arrays.low = arrays.mixed + rows * arrays.mixed_size;
  return arrays;
}

// Values after the convolution, then what each row makes of them.
void project(StepContext& step, uint32_t layer, const Arrays& arrays) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  const kernels::KernelTable& table = step.compute.table();
  Workspace& work = step.work;
  const size_t rows = step.rows.size();
  const size_t channels = arrays.channels;
  work.width_rows.set(work.normed, rows, step.spec.width);
  step.compute.multiply(weights.recurrent_in, nullptr, work.width_rows, arrays.rows, 2 * channels);
  convolve_rows(step, layer, arrays.rows, 2 * channels, true);
  ThreadPool& pool = step.compute.pool();
  pool.parallel_for(rows, [&](size_t row, size_t) {
    std::memcpy(work.attended + row * channels, arrays.rows + row * 2 * channels,
                channels * sizeof(float));
  });
  work.inner_rows.set(work.attended, rows, channels);
  step.compute.multiply(weights.rate_key_query, nullptr, work.inner_rows, arrays.mixed,
                        arrays.mixed_size);
  pool.parallel_for(rows, [&](size_t row, size_t) {
    float* mixed = arrays.mixed + row * arrays.mixed_size;
    float* keys = mixed + attention.rate_rank;
    float* queries = keys + attention.key_size;
    const float epsilon = step.spec.norm_epsilon;
    table.rms_norm(mixed, weights.rate_norm, nullptr, attention.rate_rank, epsilon,
                   arrays.low + row * attention.rate_rank);
    table.rms_norm(keys, weights.state_key_norm, nullptr, attention.key_size, epsilon, keys);
    table.rms_norm(queries, weights.state_query_norm, nullptr, attention.key_size, epsilon,
                   queries);
  });
  work.inner_rows.set(arrays.low, rows, attention.rate_rank);
  step.compute.multiply(weights.rate_up, weights.decay_bias, work.inner_rows, arrays.rates,
                        channels);
}

void scan_channels(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t begin) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  kernels::ScanArgs args{};
  args.coefficients = step.weights.layer(layer).decay_coefficient;
  args.state_size = attention.key_size;
  args.num_channels = arrays.channels;
  args.begin = begin;
  args.end = std::min(begin + kItemChannels, arrays.channels);
  args.x_stride = 2 * arrays.channels;
  args.rate_stride = arrays.channels;
  args.key_stride = arrays.mixed_size;
  args.out_stride = arrays.channels;
  for (size_t row = 0; row < step.rows.size(); ++row) {
    float* rates = arrays.rates + row * arrays.channels;
    for (size_t channel = args.begin; channel < args.end; ++channel) {
      rates[channel] = static_cast<float>(portable_softplus(static_cast<double>(rates[channel])));
    }
  }
  for_each_run(step.rows, [&](size_t first, size_t count) {
    args.num_rows = count;
    args.x = arrays.rows + first * args.x_stride;
    args.rate = arrays.rates + first * args.rate_stride;
    args.keys = arrays.mixed + first * args.key_stride + attention.rate_rank;
    args.queries = args.keys + attention.key_size;
    args.out = step.work.attended + first * args.out_stride;
    args.state =
        step.rows[first].cache->state(layer) + convolution_state_floats(attention, step.spec.width);
    step.compute.table().scan(args);
  });
}

// Adds what skips the state, and gates.
void finish_row(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t row) {
  const kernels::KernelTable& table = step.compute.table();
  const size_t channels = arrays.channels;
  float* values = arrays.rows + row * 2 * channels;
  float* out = step.work.attended + row * channels;
  table.gated_activation(kernels::Activation::kLinear, step.weights.layer(layer).skip, values,
                         channels, 0, values);
  table.add(values, channels, out);
  table.gated_activation(kernels::Activation::kSilu, values + channels, out, channels, 0, out);
}

}  // namespace

void attend_mamba(StepContext& step, uint32_t layer) {
  const Arrays arrays = arrays_of(step, step.spec.layers[layer].attention);
  ThreadPool& pool = step.compute.pool();
  project(step, layer, arrays);
  pool.parallel_for(ceil_div(arrays.channels, kItemChannels), [&](size_t item, size_t) {
    scan_channels(step, layer, arrays, item * kItemChannels);
  });
  pool.parallel_for(step.rows.size(),
                    [&](size_t row, size_t) { finish_row(step, layer, arrays, row); });
  project_attended(step, layer, arrays.channels);
}

}  // namespace edgemoe
