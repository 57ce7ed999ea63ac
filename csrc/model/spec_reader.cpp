#include "model/spec_reader.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "base/portable_math.h"
#include "model/architectures.h"
#include "model/spec_validation.h"

namespace edgemoe {
namespace {

constexpr uint64_t kMaxCount = 1u << 20;      // of layers, heads, experts, widths
constexpr uint64_t kMaxPositions = 1u << 30;  // of contexts and vocabularies

// Reads keys below "<architecture>.".
class SpecReader {
 public:
  SpecReader(const GgufFile& file, const ModelTensors& tensors, const ModelCounts& counts)
      : metadata_(file.metadata()),
        tensors_(tensors),
        counts_(counts),
        row_(*find_architecture(metadata_.get_string("general.architecture"))),
        prefix_(std::string(row_.name) + ".") {}

  ModelSpec read() {
    spec_.architecture = row_.name;
    spec_.name = metadata_.get_string_or("general.name", "");
    spec_.num_layers = counts_.num_layers;
    spec_.width = count("embedding_length");
    spec_.trained_context =
        static_cast<uint32_t>(metadata_.get_uint_or(key("context_length"), 0, kMaxPositions));
    spec_.vocab_size = vocab_size();
    read_scalars();
    read_router();
    heads_ = per_layer("attention.head_count", counts_.num_blocks);
    kv_heads_ = metadata_.contains(key("attention.head_count_kv"))
                    ? per_layer("attention.head_count_kv", counts_.num_blocks)
                    : heads_;
    for (uint32_t layer = 0; layer < spec_.num_layers; ++layer) {
      LayerSpec layer_spec;
      layer_spec.attention = row_.attention == AttentionKind::kLatent ? latent_attention(layer)
                                                                      : grouped_attention(layer);
      layer_spec.ffn = ffn(layer);
      spec_.layers.push_back(layer_spec);
    }
    return std::move(spec_);
  }

 private:
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  uint32_t count(std::string_view name) const {
    return static_cast<uint32_t>(metadata_.get_uint(key(name), kMaxCount));
  }
  uint32_t count_or(std::string_view name, uint64_t fallback) const {
    return static_cast<uint32_t>(metadata_.get_uint_or(key(name), fallback, kMaxCount));
  }
  float value_or(std::string_view name, double fallback) const {
    return static_cast<float>(metadata_.get_float_or(key(name), fallback));
  }
  std::vector<uint64_t> per_layer(std::string_view name, uint32_t size) const {
    return metadata_.get_uints(key(name), size, kMaxCount);
  }
  [[noreturn]] void refuse(ErrorCode code, std::string_view name, const std::string& what) const {
    throw Error(code, metadata_.source() + ": " + key(name) + " " + what);
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
    if (rows > kMaxPositions) refuse(ErrorCode::kFormat, "vocab_size", "is impossibly large");
    return static_cast<uint32_t>(rows);
  }

  void read_scalars() {
    spec_.activation = row_.activation;
    spec_.activation_limit = row_.activation_limit;
    spec_.norm_epsilon =
        static_cast<float>(metadata_.get_float(key("attention.layer_norm_rms_epsilon")));
    spec_.embedding_scale = value_or("embedding_scale", 1.0);
    spec_.residual_scale = value_or("residual_scale", 1.0);
    const float logit_divisor = value_or("logit_scale", 1.0);
    if (logit_divisor == 0.0f) refuse(ErrorCode::kFormat, "logit_scale", "is 0");
    spec_.logit_scale = 1.0f / logit_divisor;
    spec_.logit_softcap = value_or("final_logit_softcapping", 0.0);
  }

  RouterScore gating_function() const {
    const uint64_t id = metadata_.get_uint_or(key("expert_gating_func"), 0, UINT32_MAX);
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
        refuse(ErrorCode::kUnsupported, "expert_gating_func",
               "has the unknown value " + std::to_string(id));
    }
  }

  void read_router() {
    RouterSpec& router = spec_.router;
    router.num_experts = counts_.num_experts;
    if (!spec_.is_moe()) return;
    router.num_used = count("expert_used_count");
    router.score = gating_function();
    router.renormalise = row_.renormalise == Renormalise::kYes ||
                         (row_.renormalise == Renormalise::kFromMetadata &&
                          metadata_.get_bool_or(key("expert_weights_norm"), false));
    const float scale = value_or("expert_weights_scale", 1.0);
    router.weight_scale = scale == 0.0f ? 1.0f : scale;
    router.num_groups = std::max(1u, count_or("expert_group_count", 1));
    router.num_groups_used =
        router.num_groups == 1 ? 1 : count_or("expert_group_used_count", router.num_groups);
  }

  RopeSpec rope(uint32_t dimensions) const {
    RopeSpec rope;
    rope.pairs = row_.rope;
    rope.dimensions = dimensions;
    rope.base = metadata_.get_float_or(key("rope.freq_base"), 10000.0);
    const std::string scaling = metadata_.get_string_or(key("rope.scaling.type"), "linear");
    rope.factor = metadata_.get_float_or(key("rope.scaling.factor"),
                                         metadata_.get_float_or(key("rope.scale_linear"), 1.0));
    if (rope.factor == 0.0) rope.factor = 1.0;
    if (scaling == "none") {
      rope.factor = 1.0;
    } else if (scaling == "yarn") {
      rope.scaling = RopeScaling::kYarn;
      rope.original_context = static_cast<uint32_t>(metadata_.get_uint_or(
          key("rope.scaling.original_context_length"), spec_.trained_context, kMaxPositions));
      if (rope.original_context == 0) {
        refuse(ErrorCode::kFormat, "rope.scaling.original_context_length", "is missing or 0");
      }
    } else if (scaling == "linear") {
      rope.scaling = rope.factor == 1.0 ? RopeScaling::kNone : RopeScaling::kLinear;
    } else {
      refuse(ErrorCode::kUnsupported, "rope.scaling.type",
             "has the unknown value '" + scaling + "'");
    }
    if (!(rope.factor > 0.0) || !(rope.base > 0.0)) {
      refuse(ErrorCode::kFormat, "rope.scaling.factor", "or rope.freq_base is not positive");
    }
    rope.magnitude = metadata_.get_float_or(key("rope.scaling.attn_factor"), 1.0);
    if (rope.scaling == RopeScaling::kYarn &&
        !metadata_.contains(key("rope.scaling.yarn_log_multiplier"))) {
      rope.magnitude *= yarn_magnitude(rope, 0.1);
    }
    return rope;
  }

  // YaRN's length correction, 1 + multiplier * ln(factor) (Peng et al., arXiv 2309.00071, eq. 22).
  static double yarn_magnitude(const RopeSpec& rope, double multiplier) {
    return rope.factor <= 1.0 ? 1.0 : 1.0 + multiplier * portable_log(rope.factor);
  }

  uint32_t window(uint32_t layer) const {
    if (row_.window == WindowPattern::kNone) {
      if (metadata_.get_uint_or(key("attention.sliding_window"), 0, UINT32_MAX) != 0) {
        refuse(ErrorCode::kUnsupported, "attention.sliding_window",
               "is set, but which layers use it is not known for this architecture");
      }
      return 0;
    }
    const uint32_t width =
        static_cast<uint32_t>(metadata_.get_uint(key("attention.sliding_window"), kMaxPositions));
    return layer % 2 == 0 ? width : 0;
  }

  QkNorm qk_norm(const LayerTensors& layer, uint32_t head_size) const {
    const BoundTensor& norm = layer[TensorRole::kQueryNorm];
    if (!norm) return QkNorm::kNone;
    return norm.info->columns() * norm.info->rows() == head_size ? QkNorm::kPerHead
                                                                 : QkNorm::kFullWidth;
  }

  AttentionSpec grouped_attention(uint32_t layer) const {
    AttentionSpec attention;
    attention.kind = AttentionKind::kGrouped;
    attention.num_heads = static_cast<uint32_t>(heads_[layer]);
    attention.num_kv_heads = static_cast<uint32_t>(kv_heads_[layer]);
    if (attention.num_heads == 0 || attention.num_kv_heads == 0) {
      refuse(ErrorCode::kUnsupported, "attention.head_count",
             "is 0 for layer " + std::to_string(layer));
    }
    const uint32_t default_size = spec_.width / attention.num_heads;
    attention.key_size = count_or("attention.key_length", default_size);
    attention.value_size = count_or("attention.value_length", default_size);
    attention.window = window(layer);
    attention.qk_norm = qk_norm(tensors_.layers[layer], attention.key_size);
    attention.rope = rope(count_or("rope.dimension_count", attention.key_size));
    const float scale = value_or("attention.scale", 0.0);
    attention.scale =
        scale != 0.0f
            ? scale
            : static_cast<float>(1.0 / std::sqrt(static_cast<double>(attention.key_size)));
    return attention;
  }

  // MLA (DeepSeek-V2, arXiv 2405.04434). Newer files give head sizes under *_mla keys; in older
  // ones key_length and value_length describe a head after decompression.
  AttentionSpec latent_attention(uint32_t layer) const {
    AttentionSpec attention;
    attention.kind = AttentionKind::kLatent;
    attention.num_heads = static_cast<uint32_t>(heads_[layer]);
    attention.num_kv_heads = 1;
    const bool split = metadata_.contains(key("attention.key_length_mla"));
    const uint32_t head_key_size =
        count(split ? "attention.key_length_mla" : "attention.key_length");
    attention.head_value_size =
        count(split ? "attention.value_length_mla" : "attention.value_length");
    attention.rope = rope(count("rope.dimension_count"));
    if (head_key_size <= attention.rope.dimensions) {
      refuse(ErrorCode::kFormat, "rope.dimension_count", "leaves nothing of a head unrotated");
    }
    attention.content_size = head_key_size - attention.rope.dimensions;
    attention.latent_size = count("attention.kv_lora_rank");
    attention.query_rank =
        tensors_.layers[layer][TensorRole::kQueryDown] ? count("attention.q_lora_rank") : 0;
    attention.key_size = attention.latent_size + attention.rope.dimensions;
    attention.value_size = attention.latent_size;
    double magnitude = 1.0;
    if (row_.scales_attention_by_yarn && attention.rope.scaling == RopeScaling::kYarn) {
      magnitude = attention.rope.magnitude *
                  yarn_magnitude(attention.rope, metadata_.get_float_or(
                                                     key("rope.scaling.yarn_log_multiplier"), 0.0));
    }
    attention.scale =
        static_cast<float>(magnitude * magnitude / std::sqrt(static_cast<double>(head_key_size)));
    return attention;
  }

  FfnSpec ffn(uint32_t layer) const {
    const LayerTensors& tensors = tensors_.layers[layer];
    FfnSpec ffn;
    ffn.kind = tensors.experts.empty() ? FfnKind::kDense : FfnKind::kMoe;
    if (ffn.kind == FfnKind::kDense) {
      const uint64_t width = per_layer("feed_forward_length", counts_.num_blocks)[layer];
      ffn.width = static_cast<uint32_t>(width);
      return ffn;
    }
    for (const ExpertTensor& tensor : tensors.experts) {
      if (tensor.matrix != ExpertMatrix::kDown) ffn.width = tensor.rows;
    }
    if (const BoundTensor& shared = tensors[TensorRole::kSharedUp]) {
      ffn.shared_width = static_cast<uint32_t>(shared.info->rows());
    }
    return ffn;
  }

  const Metadata& metadata_;
  const ModelTensors& tensors_;
  const ModelCounts& counts_;
  const ArchitectureRow& row_;
  std::string prefix_;
  ModelSpec spec_;
  std::vector<uint64_t> heads_;
  std::vector<uint64_t> kv_heads_;
};

}  // namespace

ModelCounts read_counts(const GgufFile& file) {
  const Metadata& metadata = file.metadata();
  const std::string& name = metadata.get_string("general.architecture");
  if (find_architecture(name) == nullptr) {
    std::string known;
    for (const ArchitectureRow& row : architectures()) {
      known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    throw Error(ErrorCode::kUnsupported, metadata.source() + ": architecture '" + name +
                                             "' is not supported; this version runs " + known);
  }
  ModelCounts counts;
  counts.num_blocks = static_cast<uint32_t>(metadata.get_uint(name + ".block_count", kMaxCount));
  const uint32_t next_n =
      static_cast<uint32_t>(metadata.get_uint_or(name + ".nextn_predict_layers", 0, kMaxCount));
  if (counts.num_blocks == 0 || next_n >= counts.num_blocks) {
    throw Error(ErrorCode::kFormat, metadata.source() + ": " + name + ".block_count (" +
                                        std::to_string(counts.num_blocks) + ") leaves no layer");
  }
  counts.num_layers = counts.num_blocks - next_n;
  counts.num_experts =
      static_cast<uint32_t>(metadata.get_uint_or(name + ".expert_count", 0, kMaxCount));
  return counts;
}

ModelSpec read_spec(const GgufFile& file, const ModelTensors& tensors, const ModelCounts& counts) {
  ModelSpec spec = SpecReader(file, tensors, counts).read();
  validate_spec(spec, file.metadata().source());
  validate_tensors(spec, tensors, file.metadata().source());
  return spec;
}

}  // namespace edgemoe
