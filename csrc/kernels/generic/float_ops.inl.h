// Norms, activations and elementwise operations. Elementwise loops run over local arrays of a fixed
// size: the result may lie on an operand, and only local arrays tell the compiler that it may use
// vectors all the same.
#pragma once

#include "kernels/generic/elements.inl.h"
#include "kernels/generic/exponential.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kChunk = 64;

// kChunk floats when kWhole, else `count`; the others are 0.
template <bool kWhole>
void load_chunk(const float* from, size_t count, float* chunk) noexcept {
  if constexpr (kWhole) {
    for (size_t i = 0; i < kChunk; i += kLanes) store(load_f32(from + i), chunk + i);
  } else {
    for (size_t i = 0; i < kChunk; i += kLanes) store(zero_lanes(), chunk + i);
    __builtin_memcpy(chunk, from, count * sizeof(float));
  }
}

template <bool kWhole>
void store_chunk(const float* chunk, size_t count, float* to) noexcept {
  if constexpr (kWhole) {
    for (size_t i = 0; i < kChunk; i += kLanes) store(load_f32(chunk + i), to + i);
  } else {
    __builtin_memcpy(to, chunk, count * sizeof(float));
  }
}

template <bool kWhole, class Function>
void map_chunk(const float* x, size_t count, float* out, Function function) noexcept {
  alignas(64) float in[kChunk];
  alignas(64) float result[kChunk];
  load_chunk<kWhole>(x, count, in);
  for (size_t i = 0; i < kChunk; ++i) result[i] = function(in[i]);
  store_chunk<kWhole>(result, count, out);
}

// out[i] = function(x[i])
template <class Function>
void map(const float* x, size_t n, float* out, Function function) noexcept {
  size_t i = 0;
  for (; i + kChunk <= n; i += kChunk) map_chunk<true>(x + i, kChunk, out + i, function);
  if (i < n) map_chunk<false>(x + i, n - i, out + i, function);
}

template <bool kWhole, class Function>
void map_chunk_pair(const float* x, const float* y, size_t count, float* out,
                    Function function) noexcept {
  alignas(64) float left[kChunk];
  alignas(64) float right[kChunk];
  alignas(64) float result[kChunk];
  load_chunk<kWhole>(x, count, left);
  load_chunk<kWhole>(y, count, right);
  for (size_t i = 0; i < kChunk; ++i) result[i] = function(left[i], right[i]);
  store_chunk<kWhole>(result, count, out);
}

// out[i] = function(x[i], y[i])
template <class Function>
void map_pairs(const float* x, const float* y, size_t n, float* out, Function function) noexcept {
  size_t i = 0;
  for (; i + kChunk <= n; i += kChunk)
    map_chunk_pair<true>(x + i, y + i, kChunk, out + i, function);
  if (i < n) map_chunk_pair<false>(x + i, y + i, n - i, out + i, function);
}

inline float dot(const float* a, const float* b, size_t n) noexcept {
  float out;
  dot_rows<F32Element, 1>(reinterpret_cast<const std::byte*>(a), 0, b, n, &out);
  return out;
}

// Lane l takes elements l, l + 16, ...
inline float sum_of(const float* x, size_t n) noexcept {
  Lanes total = zero_lanes();
  for (size_t i = 0; i < n; i += kLanes) total = add(total, load_floats(x + i, n - i));
  return sum(total);
}

inline void apply_weight_and_bias(const float* weight, const float* bias, size_t n,
                                  float* x) noexcept {
  if (weight != nullptr) {
    map_pairs(x, weight, n, x, [](float value, float w) { return value * w; });
  }
  if (bias != nullptr) map_pairs(x, bias, n, x, [](float value, float b) { return value + b; });
}

inline void rms_norm(const float* x, const float* weight, const float* bias, size_t n, float eps,
                     float* out) noexcept {
  const float mean_square = dot(x, x, n) / static_cast<float>(n);
  const float factor = 1.0f / __builtin_sqrtf(mean_square + eps);
  map(x, n, out, [factor](float value) { return value * factor; });
  apply_weight_and_bias(weight, bias, n, out);
}

inline void layer_norm(const float* x, const float* weight, const float* bias, size_t n, float eps,
                       float* out) noexcept {
  const float mean = sum_of(x, n) / static_cast<float>(n);
  map(x, n, out, [mean](float value) { return value - mean; });
  const float variance = dot(out, out, n) / static_cast<float>(n);
  const float factor = 1.0f / __builtin_sqrtf(variance + eps);
  map(out, n, out, [factor](float value) { return value * factor; });
  apply_weight_and_bias(weight, bias, n, out);
}

inline float silu(float x) noexcept {
  return x / (1.0f + exponential(-x));
}

// The tanh form, x / 2 * (1 + tanh u), written as x * logistic(2 u): no cancellation below 0.
inline float gelu(float x) noexcept {
  constexpr float kTwoSqrt2OverPi = 0x1.988454p+0f;
  constexpr float kCubic = 0.044715f;
  const float u = kTwoSqrt2OverPi * x * __builtin_fmaf(kCubic * x, x, 1.0f);
  return x * logistic(u);
}

inline void gated_activation(Activation kind, const float* gate, const float* up, size_t n,
                             float limit, float* out) noexcept {
  switch (kind) {
    case Activation::kSilu:
      return map_pairs(gate, up, n, out, [](float g, float u) { return silu(g) * u; });
    case Activation::kGelu:
      return map_pairs(gate, up, n, out, [](float g, float u) { return gelu(g) * u; });
    case Activation::kRelu:
      return map_pairs(gate, up, n, out,
                       [](float g, float u) { return (g > 0.0f ? g : 0.0f) * u; });
    case Activation::kSigmoid:
      return map_pairs(gate, up, n, out, [](float g, float u) { return logistic(g) * u; });
    case Activation::kLinear:
      return map_pairs(gate, up, n, out, [](float g, float u) { return g * u; });
    case Activation::kStep:
      return map_pairs(gate, up, n, out, [](float g, float u) { return g > 0.0f ? u : 0.0f; });
    case Activation::kSwigluOai:
      return map_pairs(gate, up, n, out, [limit](float g, float u) {
        constexpr float kAlpha = 1.702f;
        g = g > limit ? limit : g;
        u = u > limit ? limit : u;
        u = u < -limit ? -limit : u;
        return (u + 1.0f) * (g * logistic(kAlpha * g));
      });
  }
}

inline float largest_of(const float* x, size_t n) noexcept {
  Lanes best = splat(-__builtin_inff());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) best = maximum(load_f32(x + i), best);
  float value = largest(best);
  for (; i < n; ++i) value = x[i] > value ? x[i] : value;
  return value;
}

inline void softmax(float* x, size_t n) noexcept {
  const float largest = largest_of(x, n);
  map(x, n, x, [largest](float value) { return exponential(value - largest); });
  const float total = sum_of(x, n);
  map(x, n, x, [total](float value) { return value / total; });
}

inline void sigmoid(float* x, size_t n) noexcept {
  map(x, n, x, [](float value) { return logistic(value); });
}

inline void add(const float* x, size_t n, float* y) noexcept {
  map_pairs(x, y, n, y, [](float a, float b) { return b + a; });
}

inline void add_scaled(float factor, const float* x, size_t n, float* y) noexcept {
  map_pairs(x, y, n, y, [factor](float a, float b) { return __builtin_fmaf(factor, a, b); });
}

inline void scale(float factor, size_t n, float* x) noexcept {
  map(x, n, x, [factor](float value) { return value * factor; });
}

inline void softcap(float cap, size_t n, float* x) noexcept {
  map(x, n, x, [cap](float value) { return cap * hyperbolic_tangent(value / cap); });
}

inline void rotate(float* x, size_t pairs, const float* cos, const float* sin,
                   bool neighbours) noexcept {
  const size_t step = neighbours ? 2 : 1;
  float* first = x;
  float* second = neighbours ? x + 1 : x + pairs;
  for (size_t i = 0; i < pairs; ++i) {
    const float a = first[i * step];
    const float b = second[i * step];
    first[i * step] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
    second[i * step] = __builtin_fmaf(a, sin[i], b * cos[i]);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
