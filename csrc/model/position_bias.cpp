#include "model/position_bias.h"

#include <algorithm>

#include "base/portable_math.h"

namespace edgemoe {
namespace {

// Distances that queries and keys below `context` can have.
size_t num_distances(const AttentionSpec& attention, uint32_t context) noexcept {
  if (attention.position_buckets == 0) return 0;
  return attention.causal ? context : 2 * size_t{context} - 1;
}

uint32_t first_layer_of(const ModelSpec& spec, bool encoder) noexcept {
  return encoder ? 0 : spec.num_encoder_layers;
}

}  // namespace

// The steps are rounded to float32 one by one, as where models were trained: at the edge of a
// bucket that decides.
uint32_t position_bucket(const AttentionSpec& attention, int64_t distance) noexcept {
  uint32_t buckets = attention.position_buckets;
  uint32_t first = 0;
  if (!attention.causal) {
    buckets /= 2;
    if (distance > 0) first = buckets;
  } else if (distance > 0) {
    distance = 0;
  }
  const auto length = static_cast<uint64_t>(distance < 0 ? -distance : distance);
  const uint32_t single = buckets / 2;
  if (length < single) return first + static_cast<uint32_t>(length);
  const auto ratio = static_cast<float>(length) / static_cast<float>(single);
  const auto log_ratio = static_cast<float>(portable_log(static_cast<double>(ratio)));
  const auto log_most =
      static_cast<float>(portable_log(static_cast<double>(attention.bucket_distance) / single));
  const float share = log_ratio / log_most * static_cast<float>(buckets - single);
  const auto most = static_cast<float>(buckets - single - 1);
  return first + single + static_cast<uint32_t>(std::min(share, most));
}

uint64_t PositionBias::bytes(const ModelSpec& spec, uint32_t context) noexcept {
  uint64_t floats = 0;
  for (const bool encoder : {true, false}) {
    if (encoder && !spec.has_encoder()) continue;
    const AttentionSpec& attention = spec.layers[first_layer_of(spec, encoder)].attention;
    floats += num_distances(attention, context) * attention.num_heads;
  }
  return floats * sizeof(float);
}

PositionBias::PositionBias(const ModelSpec& spec, const ModelWeights& weights, uint32_t context)
    : num_encoder_layers_(spec.num_encoder_layers), context_(context) {
  for (const bool encoder : {true, false}) {
    if (encoder && !spec.has_encoder()) continue;
    const uint32_t layer = first_layer_of(spec, encoder);
    const AttentionSpec& attention = spec.layers[layer].attention;
    Stack& stack = encoder ? encoder_ : last_;
    stack.distances = num_distances(attention, context);
    stack.values.resize(stack.distances * attention.num_heads);
    const float* table = weights.layer(layer).position_bias;
    for (size_t i = 0; i < stack.distances; ++i) {
      const int64_t distance = static_cast<int64_t>(i) - (static_cast<int64_t>(context) - 1);
      const float* biases = table + position_bucket(attention, distance) * attention.num_heads;
      for (uint32_t head = 0; head < attention.num_heads; ++head) {
        stack.values[head * stack.distances + i] = biases[head];
      }
    }
  }
}

const float* PositionBias::of(uint32_t layer, uint32_t head, uint32_t position) const noexcept {
  const Stack& stack = stack_of(layer);
  if (stack.distances == 0) return nullptr;
  return stack.values.data() + head * stack.distances + (context_ - 1 - position);
}

}  // namespace edgemoe
