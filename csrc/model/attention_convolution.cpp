#include "model/attention_convolution.h"

#include <algorithm>
#include <cstring>

#include "base/units.h"
#include "model/attention.h"
#include "model/recurrent_state.h"
#include "model/sequence_runs.h"

namespace edgemoe {
namespace {

constexpr size_t kItemChannels = 256;

void start_sequences(const StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const size_t bytes = state_floats(attention, step.spec.width) * sizeof(float);
  for (const StepRow& row : step.rows) {
    if (row.position == 0) std::memset(row.cache->state(layer), 0, bytes);
  }
}

}  // namespace

void convolve_rows(const StepContext& step, uint32_t layer, float* data, size_t stride, bool silu) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  start_sequences(step, layer);
  kernels::ConvolutionArgs args{};
  args.x_stride = stride;
  args.out_stride = stride;
  args.taps = attention.convolution_taps;
  args.num_channels = convolution_channels(attention, step.spec.width);
  args.weights = weights.convolution;
  args.bias = weights.convolution_bias;
  args.silu = silu;
  const size_t items = ceil_div(args.num_channels, kItemChannels);
  step.compute.pool().parallel_for(items, [&](size_t item, size_t) {
    for_each_run(step.rows, [&](size_t first, size_t count) {
      kernels::ConvolutionArgs run = args;
      run.begin = item * kItemChannels;
      run.end = std::min(run.begin + kItemChannels, run.num_channels);
      run.x = data + first * stride;
      run.out = data + first * stride;
      run.num_rows = count;
      run.position = step.rows[first].position;
      run.state = step.rows[first].cache->state(layer);
      step.compute.table().convolve(run);
    });
  });
}

// in_proj gives each row [b | c | x], of `width` each; the layer is out_proj(c * conv(b * x)).
void attend_short_convolution(StepContext& step, uint32_t layer) {
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  const kernels::KernelTable& table = step.compute.table();
  const size_t width = step.spec.width;
  const size_t stride = 3 * width;
  const size_t rows = step.rows.size();
  work.width_rows.set(work.normed, rows, width);
  step.compute.multiply(weights.recurrent_in, nullptr, work.width_rows, work.projected, stride);
  const auto multiply = [&](size_t offset, float* out, size_t out_stride) {
    step.compute.pool().parallel_for(rows, [&](size_t row, size_t) {
      const float* from = work.projected + row * stride;
      table.gated_activation(kernels::Activation::kLinear, from + offset, from + 2 * width, width,
                             0, out + row * out_stride);
    });
  };
  multiply(0, work.projected + 2 * width, stride);
  convolve_rows(step, layer, work.projected + 2 * width, stride, false);
  multiply(width, work.attended, width);
  project_attended(step, layer, width);
}

}  // namespace edgemoe
