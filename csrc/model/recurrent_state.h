// What the recurrent kinds of attention keep of a sequence in place of keys and values: the last
// inputs of a convolution, and a matrix for each head. Its size does not grow with the sequence.
#pragma once

#include <cstdint>

#include "base/portable_math.h"
#include "base/units.h"
#include "kernels/kernel_table.h"
#include "model/model_spec.h"

namespace edgemoe {

constexpr bool is_recurrent(AttentionKind kind) noexcept {
  return kind == AttentionKind::kShortConvolution || kind == AttentionKind::kDeltaNet ||
         kind == AttentionKind::kMamba2 || kind == AttentionKind::kMamba;
}

// Channels of the convolution.
constexpr uint64_t convolution_channels(const AttentionSpec& spec, uint64_t width) noexcept {
  if (spec.kind == AttentionKind::kShortConvolution) return width;
  if (spec.kind == AttentionKind::kMamba) return spec.value_size;
  return uint64_t{2} * spec.num_kv_heads * spec.key_size +
         uint64_t{spec.num_heads} * spec.value_size;
}

constexpr uint64_t head_state_floats(const AttentionSpec& spec) noexcept {
  return spec.key_size * align_up(uint64_t{spec.value_size}, kernels::kRecurrenceColumns);
}

// Floats before the matrices; a multiple of what a cache line holds.
constexpr uint64_t convolution_state_floats(const AttentionSpec& spec, uint64_t width) noexcept {
  return align_up((spec.convolution_taps - 1) * convolution_channels(spec, width), uint64_t{16});
}

// Floats of one layer's state. 0: the kind has none.
constexpr uint64_t state_floats(const AttentionSpec& spec, uint64_t width) noexcept {
  if (!is_recurrent(spec.kind)) return 0;
  const uint64_t heads =
      spec.kind == AttentionKind::kShortConvolution ? 0 : spec.num_heads * head_state_floats(spec);
  return convolution_state_floats(spec, width) + heads;
}

// e^exponent; 0 for what is no number.
inline float decay_of(double exponent) noexcept {
  if (!(exponent > -700.0)) return 0.0f;
  return static_cast<float>(portable_exp(exponent < 700.0 ? exponent : 700.0));
}

inline bool has_state(const ModelSpec& spec) noexcept {
  for (const LayerSpec& layer : spec.layers) {
    if (is_recurrent(layer.attention.kind)) return true;
  }
  return false;
}

}  // namespace edgemoe
