#include "model/spec_keys.h"

#include <algorithm>

namespace edgemoe {
namespace {

// Keys that say only what tensors or other keys say too, or what matters to other uses of a model.
// Of YaRN's bounds the usual ones are assumed, as everywhere. A cap of router logits is written for
// every Grok, but neither the code of Grok-1 nor llama.cpp has one.
constexpr std::string_view kRedundant[] = {
    "attention.recurrent_layers",
    "block_count",
    "context_length",
    "decoder_block_count",
    "expert_count",
    "expert_feed_forward_length",
    "expert_group_used_count",
    "expert_shared_count",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "feed_forward_length",
    "interleave_moe_layer_step",
    "leading_dense_block_count",
    "moe_every_n_layers",
    "moe_latent_size",
    "nextn_predict_layers",
    "pooling_type",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
    "router_logit_softcapping",
    "tensor_data_layout",
    "vocab_size",
};

}  // namespace

std::string SpecKeys::key(std::string_view name) const {
  asked_.emplace(name);
  return prefix_ + std::string(name);
}

bool SpecKeys::is_array(std::string_view name) const {
  const MetadataValue* value = metadata_.find(key(name));
  return value != nullptr && (std::holds_alternative<std::vector<uint64_t>>(*value) ||
                              std::holds_alternative<std::vector<int64_t>>(*value) ||
                              std::holds_alternative<std::vector<bool>>(*value));
}

void SpecKeys::refuse(ErrorCode code, std::string_view name, const std::string& what) const {
  throw Error(code, metadata_.source() + ": " + key(name) + " " + what);
}

void SpecKeys::refuse_unknown() const {
  for (const auto& [full_name, value] : metadata_.entries()) {
    if (!full_name.starts_with(prefix_)) continue;
    const std::string_view name = std::string_view(full_name).substr(prefix_.size());
    if (asked_.contains(name) || std::ranges::find(kRedundant, name) != std::end(kRedundant)) {
      continue;
    }
    refuse(ErrorCode::kUnsupported, name,
           "is not known to this version of edgemoe; the model would be computed wrongly without "
           "it");
  }
}

}  // namespace edgemoe
