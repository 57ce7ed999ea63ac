// What the architecture's name alone tells: facts that neither metadata nor tensors carry.
// The only file pair that knows architecture names.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/model_spec.h"

namespace edgemoe {

enum class Renormalise : uint8_t {
  kNo,
  kYes,
  kFromMetadata,  // no without a key
  kUnlessDenied,  // yes without a key
};

// What it means that attention.sliding_window is absent.
enum class WindowAbsence : uint8_t { kIncomplete, kNoWindow, kWindow };

// Which layers see only a window, where metadata gives its width and nothing else: of every
// `period` layers all but one, the last or the first.
struct WindowRow {
  uint32_t period = 0;      // 0: no layer has a window
  bool full_first = false;  // the first of a period sees everything, not the last
  bool is_chunk = false;    // see AttentionSpec
  uint32_t width = 0;       // not 0: whatever the key says, unless that is 0
  WindowAbsence absence = WindowAbsence::kIncomplete;
};

// Sizes that the scales of a model follow where its file does not give them.
enum class ScaleRule : uint8_t { kNone, kMiniCpm };

struct ArchitectureRow {
  std::string_view name;  // general.architecture
  AttentionKind attention = AttentionKind::kGrouped;
  RopePairs rope = RopePairs::kHalves;
  RouterScore score = RouterScore::kSoftmax;  // when expert_gating_func is absent
  Renormalise renormalise = Renormalise::kYes;
  kernels::Activation activation = kernels::Activation::kSilu;
  float activation_limit = 0;
  bool gated_networks = true;
  WindowRow window = {};
  bool finetuned_key_switches_rotation = false;  // rope.scaling.finetuned
  bool rotates_all_layers = true;                // else, where layers have windows, those alone
  bool window_uses_factors = true;  // rotation in layers with a window is divided by the factors
  QkNorm unweighted_norm = QkNorm::kNone;  // of rotated layers, which no tensor shows
  uint32_t experts_without_norm = 0;       // unless the model has so many experts
  bool norms_after_rope = false;
  bool norms_values = false;
  bool values_may_be_keys = false;  // in layers without attn_v
  float attention_scale = 0;        // without a key; 0: 1 / sqrt(key size)
  float attention_softcap = 0;      // without a key; 0: none
  uint32_t temperature_length = 0;  // see AttentionSpec; of layers that are not rotated
  float temperature_scale = 0;
  bool key_heads_take_turns = false;       // see AttentionSpec
  bool scales_attention_by_yarn = false;   // YaRN acts on the attention scale, not on the rotation
  bool scales_embedding_by_width = false;  // by its square root
  float embedding_scale = 1.0f;            // without a key
  float logit_factor = 0;  // without a key; not 0: the key multiplies logits, else it divides them
  ScaleRule scales = ScaleRule::kNone;
  float scale_beside_dense = 1.0f;  // of what experts and a dense network beside them add up to
  bool weight_before_ffn = false;
  bool router_reads_block_input = false;
  bool experts_read_block_input = false;  // through a norm of their own
  bool only_rms_norms = false;            // whichever key gives the epsilon
  bool one_network_per_layer = false;     // attention, state or feed-forward, behind attn_norm
  bool has_encoder = false;               // an encoder of its own reads the prompt
};

std::span<const ArchitectureRow> architectures() noexcept;
// Null when the name is not in the table.
const ArchitectureRow* find_architecture(std::string_view name) noexcept;

}  // namespace edgemoe
