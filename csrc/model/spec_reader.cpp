#include "model/spec_reader.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "model/architectures.h"
#include "model/attention_reader.h"
#include "model/spec_keys.h"
#include "model/spec_validation.h"

namespace edgemoe {
namespace {

// Reads keys below "<architecture>.".
class SpecReader {
 public:
  SpecReader(const GgufFile& file, const ModelTensors& tensors, const ModelCounts& counts)
      : metadata_(file.metadata()),
        tensors_(tensors),
        counts_(counts),
        row_(*find_architecture(metadata_.get_string("general.architecture"))),
        keys_(metadata_, row_.name) {}

  ModelSpec read() {
    spec_.architecture = row_.name;
    spec_.name = metadata_.get_string_or("general.name", "");
    spec_.num_layers = counts_.num_layers;
    spec_.num_encoder_layers = counts_.num_encoder_layers;
    spec_.width = keys_.count("embedding_length");
    spec_.trained_context = keys_.count_or("context_length", 0, SpecKeys::kMaxPositions);
    spec_.vocab_size = vocab_size();
    read_norm();
    read_scales();
    read_router();
    const AttentionReader attention(keys_, row_, tensors_, spec_, counts_.num_blocks);
    for (uint32_t layer = 0; layer < spec_.num_layers; ++layer) {
      LayerSpec one{.attention = attention.read(layer), .ffn = ffn(layer)};
      if (spec_.has_encoder()) set_stack(layer, one);
      spec_.layers.push_back(one);
    }
    if (spec_.has_encoder()) read_start_token();
    keys_.refuse_unknown();
    return std::move(spec_);
  }

 private:
  // An encoder's layers see all of what it reads; a decoder's attend to that too.
  void set_stack(uint32_t layer, LayerSpec& one) const {
    if (layer < spec_.num_encoder_layers) {
      one.attention.causal = false;
      return;
    }
    one.cross = one.attention;
    one.cross.causal = false;
    one.cross.position_buckets = 0;
  }

  void read_start_token() {
    constexpr std::string_view kKey = "decoder_start_token_id";
    const uint32_t token = keys_.count(kKey, SpecKeys::kMaxPositions);
    if (token >= spec_.vocab_size) {
      keys_.refuse(ErrorCode::kFormat, kKey, "is outside the vocabulary");
    }
    spec_.decoder_start_token = static_cast<int32_t>(token);
  }

  // The embedding has one row per token, so its tensor decides; a vocabulary that is present must
  // not be larger.
  uint32_t vocab_size() const {
    const BoundTensor& embedding = tensors_[TensorRole::kTokenEmbedding];
    if (!embedding) {
      throw Error(ErrorCode::kFormat, metadata_.source() +
                                          ": tensor 'token_embd.weight' is missing; the file is "
                                          "incomplete or holds only a vocabulary");
    }
    const uint64_t rows = embedding.info->rows();
    if (rows > SpecKeys::kMaxPositions) {
      keys_.refuse(ErrorCode::kFormat, "vocab_size", "is impossibly large");
    }
    return static_cast<uint32_t>(rows);
  }

  // The key that is there says which norm it is.
  void read_norm() {
    constexpr std::string_view kLayerNorm = "attention.layer_norm_epsilon";
    constexpr std::string_view kRmsNorm = "attention.layer_norm_rms_epsilon";
    if (keys_.contains(kLayerNorm) && !keys_.contains(kRmsNorm)) {
      if (!row_.only_rms_norms) spec_.norm = NormKind::kLayer;
      spec_.norm_epsilon = static_cast<float>(keys_.value(kLayerNorm));
    } else {
      spec_.norm_epsilon = static_cast<float>(keys_.value(kRmsNorm));
    }
  }

  void read_scales() {
    spec_.activation = row_.activation;
    spec_.activation_limit = row_.activation_limit;
    spec_.gated_networks = row_.gated_networks;
    double embedding_scale = static_cast<double>(row_.embedding_scale);
    double residual_scale = 1.0;
    double logit_divisor = 1.0;
    if (row_.scales_embedding_by_width) embedding_scale = std::sqrt(spec_.width);
    if (row_.scales == ScaleRule::kMiniCpm) {
      embedding_scale = 12.0;
      residual_scale = 1.4 / std::sqrt(spec_.num_layers);
      logit_divisor = 256.0 / spec_.width;
    }
    spec_.embedding_scale = static_cast<float>(keys_.value_or("embedding_scale", embedding_scale));
    spec_.residual_scale = static_cast<float>(keys_.value_or("residual_scale", residual_scale));
    const bool multiplies = row_.logit_factor != 0.0f;
    if (multiplies) logit_divisor = static_cast<double>(row_.logit_factor);
    const auto logit_scale = static_cast<float>(keys_.value_or("logit_scale", logit_divisor));
    if (logit_scale == 0.0f) keys_.refuse(ErrorCode::kFormat, "logit_scale", "is 0");
    spec_.logit_scale = multiplies ? logit_scale : 1.0f / logit_scale;
    spec_.logit_softcap = static_cast<float>(keys_.value_or("final_logit_softcapping", 0.0));
    if (keys_.count_or("embedding_length_per_layer_input", 0) != 0) {
      keys_.refuse(ErrorCode::kUnsupported, "embedding_length_per_layer_input", "is not 0");
    }
  }

  RouterScore gating_function() const {
    const uint32_t id = keys_.count_or("expert_gating_func", 0, UINT32_MAX);
    switch (id) {
      case 0:  // absent
        return row_.score;
      case 1:
        return RouterScore::kSoftmax;
      case 2:
        return RouterScore::kSigmoid;
      case 3:
        return RouterScore::kSoftmaxTopK;
      case 4:
        return RouterScore::kSqrtSoftplus;
      default:
        keys_.refuse(ErrorCode::kUnsupported, "expert_gating_func",
                     "has the unknown value " + std::to_string(id));
    }
  }

  bool renormalises() const {
    switch (row_.renormalise) {
      case Renormalise::kNo:
        return false;
      case Renormalise::kYes:
        return true;
      case Renormalise::kFromMetadata:
        return keys_.flag_or("expert_weights_norm", false);
      case Renormalise::kUnlessDenied:
        return keys_.flag_or("expert_weights_norm", true);
    }
    return false;
  }

  void read_router() {
    RouterSpec& router = spec_.router;
    router.num_experts = counts_.num_experts;
    router.num_used = keys_.count_or("expert_used_count", 0);
    router.score = gating_function();
    const double scale = keys_.value_or("expert_weights_scale", 1.0);
    router.num_groups = std::max(1u, keys_.count_or("expert_group_count", 1));
    if (!spec_.is_moe()) {
      router = {};
      return;
    }
    router.num_used = keys_.count("expert_used_count");
    router.renormalise = renormalises();
    router.weight_scale = scale == 0.0 ? 1.0f : static_cast<float>(scale);
    router.num_groups_used =
        router.num_groups == 1 ? 1 : keys_.count_or("expert_group_used_count", router.num_groups);
    router.weight_before_ffn = row_.weight_before_ffn;
    router.reads_block_input = row_.router_reads_block_input;
  }

  FfnSpec ffn(uint32_t layer) const {
    const LayerTensors& tensors = tensors_.layers[layer];
    FfnSpec ffn;
    ffn.kind = tensors.experts.empty() ? FfnKind::kDense : FfnKind::kMoe;
    if (row_.one_network_per_layer && tensors.experts.empty() && !tensors[TensorRole::kFfnUp]) {
      ffn.kind = FfnKind::kNone;
      return ffn;
    }
    if (ffn.kind == FfnKind::kDense) {
      const uint64_t width = keys_.counts("feed_forward_length", counts_.num_blocks)[layer];
      ffn.width = static_cast<uint32_t>(width);
      return ffn;
    }
    for (const ExpertTensor& tensor : tensors.experts) {
      if (tensor.matrix != ExpertMatrix::kDown) ffn.width = tensor.rows;
    }
    ffn.experts_have_norm = static_cast<bool>(tensors[TensorRole::kExpertNorm]);
    ffn.experts_read_block_input = ffn.experts_have_norm && row_.experts_read_block_input;
    ffn.router_has_norm = static_cast<bool>(tensors[TensorRole::kRouterNorm]);
    if (const BoundTensor& narrow = tensors[TensorRole::kExpertNarrow]) {
      ffn.narrow_width = static_cast<uint32_t>(narrow.info->rows());
    }
    // A dense network beside the experts is a shared expert by another name.
    for (const TensorRole role : {TensorRole::kSharedUp, TensorRole::kFfnUp}) {
      if (tensors[role]) ffn.shared_width = static_cast<uint32_t>(tensors[role].info->rows());
    }
    if (tensors[TensorRole::kFfnUp]) ffn.branch_scale = row_.scale_beside_dense;
    return ffn;
  }

  const Metadata& metadata_;
  const ModelTensors& tensors_;
  const ModelCounts& counts_;
  const ArchitectureRow& row_;
  SpecKeys keys_;
  ModelSpec spec_;
};

}  // namespace

ModelCounts read_counts(const GgufFile& file) {
  const Metadata& metadata = file.metadata();
  const std::string& name = metadata.get_string("general.architecture");
  const ArchitectureRow* found = find_architecture(name);
  if (found == nullptr) {
    std::string known;
    for (const ArchitectureRow& row : architectures()) {
      known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    throw Error(ErrorCode::kUnsupported, metadata.source() + ": architecture '" + name +
                                             "' is not supported; this version runs " + known);
  }
  ModelCounts counts;
  counts.num_blocks =
      static_cast<uint32_t>(metadata.get_uint(name + ".block_count", SpecKeys::kMaxCount));
  const uint32_t next_n = static_cast<uint32_t>(
      metadata.get_uint_or(name + ".nextn_predict_layers", 0, SpecKeys::kMaxCount));
  if (counts.num_blocks == 0 || next_n >= counts.num_blocks) {
    throw Error(ErrorCode::kFormat, metadata.source() + ": " + name + ".block_count (" +
                                        std::to_string(counts.num_blocks) + ") leaves no layer");
  }
  counts.num_layers = counts.num_blocks - next_n;
  counts.num_experts =
      static_cast<uint32_t>(metadata.get_uint_or(name + ".expert_count", 0, SpecKeys::kMaxCount));
  if (!found->has_encoder) return counts;
  // block_count is the encoder's.
  const uint32_t decoder = static_cast<uint32_t>(
      metadata.get_uint_or(name + ".decoder_block_count", counts.num_blocks, SpecKeys::kMaxCount));
  if (next_n != 0 || decoder == 0) {
    throw Error(ErrorCode::kFormat, metadata.source() + ": " + name +
                                        ".decoder_block_count is 0, or there are NextN blocks");
  }
  counts.num_encoder_layers = counts.num_blocks;
  counts.num_blocks += decoder;
  counts.num_layers = counts.num_blocks;
  return counts;
}

ModelSpec read_spec(const GgufFile& file, const ModelTensors& tensors, const ModelCounts& counts) {
  ModelSpec spec = SpecReader(file, tensors, counts).read();
  validate_spec(spec, file.metadata().source());
  validate_tensors(spec, tensors, file.metadata().source());
  return spec;
}

}  // namespace edgemoe
