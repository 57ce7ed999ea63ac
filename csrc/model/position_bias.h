// Biases of attention scores by the distance from query to key (T5, arXiv 1910.10683, section 2.1):
// near distances have a bucket each, farther ones share buckets that widen by their logarithm. The
// layers of a stack use the same.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"
#include "model/model_weights.h"

namespace edgemoe {

// The bucket of a key that lies `distance` positions behind its query, before it where negative.
// Requires: what validate_spec has established of the spec's buckets.
uint32_t position_bucket(const AttentionSpec& attention, int64_t distance) noexcept;

class PositionBias {
 public:
  static uint64_t bytes(const ModelSpec& spec, uint32_t context) noexcept;
  // For positions below `context`.
  PositionBias(const ModelSpec& spec, const ModelWeights& weights, uint32_t context);

  // Biases of a query: [p] is that of the key at position p. Null where the layer has none.
  const float* of(uint32_t layer, uint32_t head, uint32_t position) const noexcept;

 private:
  // Of a stack of layers: [num_heads][distances], from that of the first key to the last query on.
  struct Stack {
    size_t distances = 0;
    std::vector<float> values;
  };
  const Stack& stack_of(uint32_t layer) const noexcept {
    return layer < num_encoder_layers_ ? encoder_ : last_;
  }

  uint32_t num_encoder_layers_;
  uint32_t context_;
  Stack encoder_;
  Stack last_;  // of the decoder, or of all layers where there is no encoder
};

}  // namespace edgemoe
