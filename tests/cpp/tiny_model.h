// A model of two layers whose weights are all 0, so that every token uses the same experts.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gguf_image.h"

namespace edgemoe::test {

inline constexpr uint32_t kTinyLayers = 2;
inline constexpr uint64_t kTinyWidth = 64;
inline constexpr uint64_t kTinyExperts = 4;
inline constexpr uint64_t kTinyHidden = 32;
inline constexpr uint64_t kTinyVocabulary = 40;

// A small Mixtral.
inline GgufImage tiny_model() {
  GgufImage image;
  image.add("general.architecture", "llama")
      .add("llama.block_count", kTinyLayers)
      .add("llama.context_length", uint32_t{128})
      .add("llama.embedding_length", static_cast<uint32_t>(kTinyWidth))
      .add("llama.feed_forward_length", static_cast<uint32_t>(kTinyHidden))
      .add("llama.attention.head_count", uint32_t{4})
      .add("llama.attention.head_count_kv", uint32_t{2})
      .add("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .add("llama.rope.dimension_count", uint32_t{16})
      .add("llama.rope.freq_base", 10000.0f)
      .add("llama.expert_count", static_cast<uint32_t>(kTinyExperts))
      .add("llama.expert_used_count", uint32_t{2})
      .add("llama.vocab_size", static_cast<uint32_t>(kTinyVocabulary));
  const auto tensor = [&](const std::string& name, std::vector<uint64_t> shape) {
    image.add_tensor(name, QuantType::kF32, std::move(shape));
  };
  tensor("token_embd.weight", {kTinyWidth, kTinyVocabulary});
  tensor("output_norm.weight", {kTinyWidth});
  tensor("output.weight", {kTinyWidth, kTinyVocabulary});
  for (uint32_t layer = 0; layer < kTinyLayers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    tensor(block + "attn_norm.weight", {kTinyWidth});
    tensor(block + "attn_q.weight", {kTinyWidth, kTinyWidth});
    tensor(block + "attn_k.weight", {kTinyWidth, kTinyWidth / 2});
    tensor(block + "attn_v.weight", {kTinyWidth, kTinyWidth / 2});
    tensor(block + "attn_output.weight", {kTinyWidth, kTinyWidth});
    tensor(block + "ffn_norm.weight", {kTinyWidth});
    tensor(block + "ffn_gate_inp.weight", {kTinyWidth, kTinyExperts});
    tensor(block + "ffn_gate_exps.weight", {kTinyWidth, kTinyHidden, kTinyExperts});
    tensor(block + "ffn_up_exps.weight", {kTinyWidth, kTinyHidden, kTinyExperts});
    tensor(block + "ffn_down_exps.weight", {kTinyHidden, kTinyWidth, kTinyExperts});
  }
  return image;
}

}  // namespace edgemoe::test
