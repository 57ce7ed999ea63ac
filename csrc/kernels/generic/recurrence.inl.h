// Layers with a state: causal convolution and linear recurrence. Lanes are channels or columns of
// the state, so no sum crosses lanes, and rows come one after another: how a sequence is cut into
// calls changes nothing.
#pragma once

#include "kernels/generic/elements.inl.h"
#include "kernels/generic/float_ops.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline Lanes silu_lanes(const Lanes& x) noexcept {
  alignas(64) float values[kLanes];
  store(x, values);
  for (float& value : values) value = silu(value);
  return load_f32(values);
}

// `count` channels from `channel` on, at most kLanes, of one row.
inline void convolve_lanes(const ConvolutionArgs& args, size_t row, size_t channel,
                           size_t count) noexcept {
  const size_t past = args.taps - 1;
  const size_t position = args.position + row;
  const float* weights = args.weights + channel;
  float* state = args.state + channel;
  Lanes sum = args.bias == nullptr ? zero_lanes() : load_floats(args.bias + channel, count);
  for (size_t tap = 0; tap < past; ++tap) {
    const float* before = state + (position + tap) % past * args.num_channels;
    sum = fused_multiply_add(load_floats(weights + tap * args.num_channels, count),
                             load_floats(before, count), sum);
  }
  const Lanes x = load_floats(args.x + row * args.x_stride + channel, count);
  sum = fused_multiply_add(load_floats(weights + past * args.num_channels, count), x, sum);
  store_floats(x, state + position % past * args.num_channels, count);
  store_floats(args.silu ? silu_lanes(sum) : sum, args.out + row * args.out_stride + channel,
               count);
}

inline void convolve(const ConvolutionArgs& args) noexcept {
  for (size_t channel = args.begin; channel < args.end; channel += kLanes) {
    const size_t rest = args.end - channel;
    for (size_t row = 0; row < args.num_rows; ++row) {
      convolve_lanes(args, row, channel, rest < kLanes ? rest : kLanes);
    }
  }
}

inline constexpr size_t kTileLanes = kRecurrenceColumns / kLanes;
struct ColumnTile {
  Lanes lanes[kTileLanes];
};

// Up to kRecurrenceColumns floats; the others are 0.
inline ColumnTile load_tile(const float* from, size_t count) noexcept {
  ColumnTile tile;
  for (size_t l = 0; l < kTileLanes; ++l) {
    const size_t first = l * kLanes;
    tile.lanes[l] = first < count ? load_floats(from + first, count - first) : zero_lanes();
  }
  return tile;
}

inline void store_tile(const ColumnTile& tile, float* to, size_t count) noexcept {
  for (size_t l = 0; l < kTileLanes && l * kLanes < count; ++l) {
    store_floats(tile.lanes[l], to + l * kLanes, count - l * kLanes);
  }
}

// key . state, for the columns of a tile.
inline ColumnTile recall(const float* state, const float* key, size_t key_size) noexcept {
  ColumnTile sum = load_tile(nullptr, 0);
  for (size_t i = 0; i < key_size; ++i) {
    const Lanes k = splat(key[i]);
    for (size_t l = 0; l < kTileLanes; ++l) {
      const Lanes s = load_f32(state + i * kRecurrenceColumns + l * kLanes);
      sum.lanes[l] = fused_multiply_add(k, s, sum.lanes[l]);
    }
  }
  return sum;
}

// state = decay * state + key change^T; returns query . state.
inline ColumnTile renew(const RecurrenceArgs& args, size_t row, const ColumnTile& change,
                        float* state) noexcept {
  const float* key = args.keys + row * args.key_stride;
  const float* query = args.queries + row * args.key_stride;
  const Lanes decay = splat(args.decay[row * args.gate_stride]);
  ColumnTile sum = load_tile(nullptr, 0);
  for (size_t i = 0; i < args.key_size; ++i) {
    const Lanes k = splat(key[i]);
    const Lanes q = splat(query[i]);
    for (size_t l = 0; l < kTileLanes; ++l) {
      float* place = state + i * kRecurrenceColumns + l * kLanes;
      const Lanes s = fused_multiply_add(k, change.lanes[l], multiply(decay, load_f32(place)));
      store(s, place);
      sum.lanes[l] = fused_multiply_add(q, s, sum.lanes[l]);
    }
  }
  return sum;
}

inline void recur_row(const RecurrenceArgs& args, size_t row, size_t column,
                      float* state) noexcept {
  const size_t rest = args.value_size - column;
  const size_t count = rest < kRecurrenceColumns ? rest : kRecurrenceColumns;
  const size_t gate = row * args.gate_stride;
  const Lanes rate = splat(args.rate[gate]);
  ColumnTile change = load_tile(args.values + row * args.value_stride + column, count);
  if (args.corrects) {
    const ColumnTile known = recall(state, args.keys + row * args.key_stride, args.key_size);
    const Lanes minus_decay = splat(-args.decay[gate]);
    for (size_t l = 0; l < kTileLanes; ++l) {
      change.lanes[l] = fused_multiply_add(minus_decay, known.lanes[l], change.lanes[l]);
    }
  }
  for (Lanes& lanes : change.lanes) lanes = multiply(rate, lanes);
  store_tile(renew(args, row, change, state), args.out + row * args.out_stride + column, count);
}

inline void recur(const RecurrenceArgs& args) noexcept {
  for (size_t column = args.begin; column < args.end; column += kRecurrenceColumns) {
    float* state = args.state + column * args.key_size;
    for (size_t row = 0; row < args.num_rows; ++row) recur_row(args, row, column, state);
  }
}

inline Lanes exponential_lanes(const Lanes& x) noexcept {
  alignas(64) float values[kLanes];
  store(x, values);
  for (float& value : values) value = exponential(value);
  return load_f32(values);
}

// `count` channels from `channel` on, at most kLanes, of one row.
inline void scan_lanes(const ScanArgs& args, size_t row, size_t channel, size_t count) noexcept {
  const float* key = args.keys + row * args.key_stride;
  const float* query = args.queries + row * args.key_stride;
  const Lanes rate = load_floats(args.rate + row * args.rate_stride + channel, count);
  const Lanes change = multiply(rate, load_floats(args.x + row * args.x_stride + channel, count));
  Lanes sum = zero_lanes();
  for (size_t i = 0; i < args.state_size; ++i) {
    const size_t place = i * args.num_channels + channel;
    const Lanes decay =
        exponential_lanes(multiply(rate, load_floats(args.coefficients + place, count)));
    const Lanes s = fused_multiply_add(splat(key[i]), change,
                                       multiply(decay, load_floats(args.state + place, count)));
    store_floats(s, args.state + place, count);
    sum = fused_multiply_add(splat(query[i]), s, sum);
  }
  store_floats(sum, args.out + row * args.out_stride + channel, count);
}

inline void scan(const ScanArgs& args) noexcept {
  for (size_t channel = args.begin; channel < args.end; channel += kLanes) {
    const size_t rest = args.end - channel;
    for (size_t row = 0; row < args.num_rows; ++row) {
      scan_lanes(args, row, channel, rest < kLanes ? rest : kLanes);
    }
  }
}

}  // namespace
}  // namespace edgemoe::kernels
