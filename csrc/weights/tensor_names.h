// The only file pair that knows GGUF tensor names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "weights/model_tensors.h"

namespace edgemoe {

// Most models have one stack of layers, "blk.N."; others "enc.blk.N." and "dec.blk.N.".
enum class LayerStack : uint8_t { kOnly, kEncoder, kDecoder };

struct BlockName {
  LayerStack stack = LayerStack::kOnly;
  uint32_t number = 0;    // in its stack
  std::string_view rest;  // behind it: "attn_q.weight"
};
// Empty when the name is not that of a tensor of a block.
std::optional<BlockName> block_of(std::string_view name) noexcept;
// "blk.3", "enc.blk.3" or "dec.blk.0" of a layer of a model whose first layers are an encoder's.
std::string block_name(uint32_t layer, uint32_t num_encoder_layers);

enum class TensorScope : uint8_t { kModel, kLayer, kIgnored };

// What a tensor name means. Exactly one of `role` and `expert_matrix` is set unless ignored.
struct TensorMeaning {
  TensorScope scope = TensorScope::kModel;
  uint32_t layer = 0;  // kLayer; in its stack
  std::optional<TensorRole> role;
  std::optional<ExpertMatrix> expert_matrix;
  bool fused_gate_up = false;
  std::optional<uint32_t> expert;  // one tensor per expert (old files)
  bool is_low_copy = false;        // of that expert (packed containers)
  bool is_scale = false;           // the `.scale` beside the tensor of that role
};

// Empty when the name has no meaning to this build.
std::optional<TensorMeaning> meaning_of(std::string_view name);

// The tensor of one expert's matrix, "blk.3.ffn_up.7.weight", and of all experts of a layer,
// "blk.3.ffn_up_exps.weight".
std::string expert_name(uint32_t layer, ExpertMatrix matrix, uint32_t expert);
std::string expert_stack_name(uint32_t layer, ExpertMatrix matrix);
// The tensor of its low copy, "blk.3.ffn_up.7.low.weight".
std::string low_copy_name(uint32_t layer, ExpertMatrix matrix, uint32_t expert);
// The name of a tensor beside a fused gate_up stack ("blk.3.ffn_gate_up_exps.scale") as it is
// called beside the stack of one half.
std::string half_of_fused_name(std::string_view name, ExpertMatrix matrix);

// The usual name of a role, for messages: "attn_q.weight".
std::string_view role_name(TensorRole role) noexcept;

}  // namespace edgemoe
