// A model as data: everything that the forward pass asks. Read once from metadata, the
// architecture's row and the tensors that are present; immutable afterwards.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"

namespace edgemoe {

enum class NormKind : uint8_t { kRms, kLayer };

enum class RopePairs : uint8_t {
  kNone,        // no rotation
  kNeighbours,  // (x[2i], x[2i+1])
  kHalves,      // (x[i], x[i + n/2])
};

enum class RopeScaling : uint8_t { kNone, kLinear, kYarn };

struct RopeSpec {
  RopePairs pairs = RopePairs::kNone;
  RopeScaling scaling = RopeScaling::kNone;
  uint32_t dimensions = 0;  // rotated elements of a head, from the front; even
  double base = 10000.0;
  double factor = 1.0;              // positions are divided by it (kLinear, kYarn)
  uint32_t original_context = 0;    // that the model was first trained with
  double magnitude = 1.0;           // multiplies cos and sin
  bool divides_by_factors = false;  // of the file, one for each frequency
};

enum class AttentionKind : uint8_t {
  kNone,     // the layer is a feed-forward network alone
  kGrouped,  // queries in groups share a key/value head
  kLatent,   // MLA in the absorbed form: one compressed row per position serves all heads
  // With a state in place of keys and values (recurrent_state.h):
  kShortConvolution,  // gates around a causal convolution
  kDeltaNet,          // gated delta net
  kMamba2,
  kMamba,
};

enum class QkNorm : uint8_t {
  kNone,
  kPerHead,            // each head on its own
  kPerHeadUnweighted,  // likewise, without weights
  kFullWidth,          // all heads together
};

// Whose sigmoid multiplies what attention gives.
enum class AttentionGate : uint8_t {
  kNone,
  kBesideQuery,  // the query matrix gives each head a gate behind its query
  kOwnMatrix,
};

struct AttentionSpec {
  AttentionKind kind = AttentionKind::kGrouped;
  uint32_t num_heads = 0;        // kDeltaNet: of values
  uint32_t num_kv_heads = 0;     // 1 for kLatent; kDeltaNet: of queries and keys
  uint32_t key_size = 0;         // of a head, as cached; kLatent: latent_size + rope.dimensions
  uint32_t value_size = 0;       // of a head, as cached; kLatent: latent_size
  uint32_t window = 0;           // positions that a query sees, itself included; 0: all
  bool window_is_chunk = false;  // it sees those from the last multiple of `window` on instead
  bool causal = true;            // else it sees all positions, those behind it too
  // A bias on scores, by bucket of the distance from query to key; 0 buckets: none. Distances of
  // bucket_distance and more share the last bucket.
  uint32_t position_buckets = 0;
  uint32_t bucket_distance = 0;
  QkNorm qk_norm = QkNorm::kNone;
  bool qk_norm_after_rope = false;
  bool norms_values = false;     // each head, without weights
  bool values_are_keys = false;  // as projected, before norm and rotation
  AttentionGate gate = AttentionGate::kNone;
  float scale = 0;                  // multiplies query . key
  uint32_t temperature_length = 0;  // queries grow with the logarithm of the position in units of
  float temperature_scale = 0;      // this: 1 + scale * log(1 + floor((p + 1) / length)); 0: not
  float softcap = 0;                // 0: none
  float qkv_clamp = 0;              // 0: none
  RopeSpec rope = {};
  // kLatent
  uint32_t query_rank = 0;  // 0: queries come from one matrix
  uint32_t latent_size = 0;
  uint32_t content_size = 0;     // part of a query head that is not rotated
  uint32_t head_value_size = 0;  // of a head after decompression
  // kShortConvolution, kDeltaNet
  uint32_t convolution_taps = 0;
  uint32_t rate_rank = 0;             // kMamba, whose channels are the values of one head
  bool key_heads_take_turns = false;  // for value heads: 0 1 0 1; else 0 0 1 1
};

enum class FfnKind : uint8_t { kNone, kDense, kMoe };

enum class RouterScore : uint8_t {
  kSoftmax,  // over all experts, then top-k
  kSigmoid,
  kSoftmaxTopK,  // top-k of the logits, softmax over those
  kSqrtSoftplus,
};

struct RouterSpec {
  RouterScore score = RouterScore::kSoftmax;
  uint32_t num_experts = 0;
  uint32_t num_used = 0;
  bool renormalise = false;  // divide the chosen weights by their sum
  float weight_scale = 1.0f;
  uint32_t num_groups = 1;  // groups are ranked by their two best selection scores
  uint32_t num_groups_used = 1;
  bool weight_before_ffn = false;  // the weight scales the expert's input
  // It sees the residual stream before attention, without a norm, so that a layer's experts are
  // known before its attention runs.
  bool reads_block_input = false;
};

struct FfnSpec {
  FfnKind kind = FfnKind::kDense;
  uint32_t width = 0;              // of the dense network, or of one expert
  bool experts_have_norm = false;  // they read the residual stream through a norm of their own
  bool experts_read_block_input = false;  // through that norm, as the router does
  bool router_has_norm = false;           // likewise
  // Of what experts read and add, which matrices of the layer make of rows of the stream and back;
  // 0: they have the width of the stream.
  uint32_t narrow_width = 0;
  uint32_t shared_width = 0;  // of the shared expert, or the dense network beside experts; 0: none
  float branch_scale = 1.0f;  // multiplies what these and the experts add up to
};

struct LayerSpec {
  AttentionSpec attention;
  // Of a decoder behind an encoder: to what that has read. kNone elsewhere.
  AttentionSpec cross = {.kind = AttentionKind::kNone};
  FfnSpec ffn;
};

struct ModelSpec {
  std::string architecture;
  std::string name;  // general.name; may be empty
  uint32_t num_layers = 0;
  uint32_t num_encoder_layers = 0;  // the first ones; 0: there is no encoder
  uint32_t width = 0;               // of the residual stream
  uint32_t vocab_size = 0;
  uint32_t trained_context = 0;
  NormKind norm = NormKind::kRms;
  float norm_epsilon = 0;
  kernels::Activation activation = kernels::Activation::kSilu;
  float activation_limit = 0;  // kSwigluOai
  bool gated_networks =
      true;  // else down(activation(up x) * up x): kRelu squares, kStep gives ReLU
  float embedding_scale = 1.0f;
  float residual_scale = 1.0f;  // multiplies what attention and FFN add to the stream
  float logit_scale = 1.0f;     // multiplies the logits
  float logit_softcap = 0;      // 0: none
  RouterSpec router;            // num_experts 0: a dense model
  std::vector<LayerSpec> layers;

  int32_t decoder_start_token = -1;  // that a decoder behind an encoder begins with

  bool is_moe() const noexcept { return router.num_experts != 0; }
  bool has_encoder() const noexcept { return num_encoder_layers != 0; }
  // The experts of a layer are known before its attention runs.
  bool routes_early(uint32_t layer) const noexcept {
    return router.reads_block_input || layers[layer].ffn.experts_read_block_input;
  }
};

}  // namespace edgemoe
