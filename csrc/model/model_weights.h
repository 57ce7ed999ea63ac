// The weights that stay in memory: everything but the routed experts and the embedding rows. One
// arena, sized before it is allocated, in the layout that the kernels read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/should_stop.h"
#include "base/thread_pool.h"
#include "io/file.h"
#include "model/model_spec.h"
#include "weights/matrix.h"
#include "weights/model_tensors.h"

namespace edgemoe {

// Matrices and float32 vectors of one layer; null or empty where the model has none.
struct LayerWeights {
  const float* attention_norm = nullptr;
  const float* attention_norm_bias = nullptr;
  const float* query_norm = nullptr;
  const float* key_norm = nullptr;
  const float* sinks = nullptr;  // [num_heads]
  // kGrouped: one fused matrix, or three. kLatent: query alone, or query_down and query_up.
  MatrixView qkv, query, key, value;
  const float* qkv_bias = nullptr;
  const float* query_bias = nullptr;
  const float* key_bias = nullptr;
  const float* value_bias = nullptr;
  MatrixView query_down, query_up, latent_down;
  const float* query_down_norm = nullptr;
  const float* latent_norm = nullptr;
  std::vector<MatrixView> key_absorb;    // per head: [latent_size rows, content_size columns]
  std::vector<MatrixView> value_up;      // per head: [head_value_size rows, latent_size columns]
  const float* position_bias = nullptr;  // [buckets][num_heads], of the first layer of a stack
  MatrixView attention_output;
  const float* attention_output_bias = nullptr;
  // kShortConvolution, kDeltaNet; their last matrix is attention_output.
  MatrixView recurrent_in, attention_gate, rate, decay, rate_decay;
  MatrixView rate_key_query, rate_up;     // kMamba
  const float* rate_norm = nullptr;       // kMamba: [rate_rank]
  const float* state_key_norm = nullptr;  // kMamba: [key_size], as the next
  const float* state_query_norm = nullptr;
  const float* convolution = nullptr;  // [taps][channels]
  const float* convolution_bias = nullptr;
  const float* decay_bias = nullptr;         // [num_heads]; kMamba: [value_size]
  const float* decay_coefficient = nullptr;  // [num_heads]; kMamba: [key_size][value_size]
  const float* state_norm = nullptr;         // kDeltaNet: [value_size]; kMamba2: of all heads
  const float* skip = nullptr;               // kMamba2: [num_heads]
  // Attention of a decoder to what its encoder read.
  const float* cross_norm = nullptr;
  MatrixView cross_query, cross_key, cross_value, cross_output;
  const float* post_attention_norm = nullptr;
  const float* ffn_norm = nullptr;
  const float* ffn_norm_bias = nullptr;
  const float* ffn_post_norm = nullptr;
  const float* shared_post_norm = nullptr;
  const float* expert_norm = nullptr;  // else ffn_norm
  const float* expert_post_norm = nullptr;
  MatrixView expert_narrow, expert_widen;
  const float* layer_scale = nullptr;     // [1]
  MatrixView ffn_gate, ffn_up, ffn_down;  // dense layers
  MatrixView router;
  const float* router_norm = nullptr;
  const float* router_bias = nullptr;
  const float* selection_bias = nullptr;
  const float* expert_gate_bias = nullptr;  // [num_experts][width], as the other two
  const float* expert_up_bias = nullptr;
  const float* expert_down_bias = nullptr;
  MatrixView shared_gate, shared_up, shared_down;
  MatrixView shared_router;  // one row: its sigmoid scales the shared expert's output
};

class ModelWeights {
 public:
  // Bytes of the arena.
  static uint64_t bytes(const ModelSpec& spec, const ModelTensors& tensors);

  // Reads and regroups everything. `files` are the model's shards. Asks should_stop every few MiB.
  // Errors: kIo, kCancelled; kBudget when the arena is refused.
  ModelWeights(const ModelSpec& spec, const ModelTensors& tensors, std::span<const File> files,
               ThreadPool& pool, const ShouldStop& should_stop);

  // All that it holds.
  std::span<const std::byte> memory() const noexcept { return {arena_.data(), arena_.bytes()}; }
  const LayerWeights& layer(uint32_t index) const noexcept { return layers_[index]; }
  const float* encoder_norm() const noexcept { return encoder_norm_; }
  const float* output_norm() const noexcept { return output_norm_; }
  const float* output_norm_bias() const noexcept { return output_norm_bias_; }
  const MatrixView& output() const noexcept { return output_; }
  const float* output_bias() const noexcept { return output_bias_; }
  // Divides the rotation frequencies; [rope dimensions / 2] or null. `is_long`: for contexts beyond
  // the one that the model was first trained with.
  const float* rope_factors(bool is_long) const noexcept {
    return is_long && rope_factors_long_ != nullptr ? rope_factors_long_ : rope_factors_;
  }

 private:
  friend class WeightPlacer;
  ModelWeights() = default;
  AlignedBuffer arena_;
  std::vector<LayerWeights> layers_;
  MatrixView output_;
  const float* encoder_norm_ = nullptr;
  const float* output_norm_ = nullptr;
  const float* output_norm_bias_ = nullptr;
  const float* output_bias_ = nullptr;
  const float* rope_factors_ = nullptr;
  const float* rope_factors_long_ = nullptr;
};

}  // namespace edgemoe
