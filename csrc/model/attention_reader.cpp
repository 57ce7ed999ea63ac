#include "model/attention_reader.h"

#include <cmath>
#include <string>

#include "base/portable_math.h"

namespace edgemoe {
namespace {

// YaRN's length correction, 1 + multiplier * ln(factor) (Peng et al., arXiv 2309.00071, eq. 22).
double yarn_magnitude(const RopeSpec& rope, double multiplier) {
  return rope.factor <= 1.0 ? 1.0 : 1.0 + multiplier * portable_log(rope.factor);
}

}  // namespace

AttentionReader::AttentionReader(const SpecKeys& keys, const ArchitectureRow& row,
                                 const ModelTensors& tensors, const ModelSpec& spec,
                                 uint32_t num_blocks)
    : keys_(keys), row_(row), tensors_(tensors), spec_(spec) {
  heads_ = keys.counts("attention.head_count", num_blocks);
  kv_heads_ = keys.contains("attention.head_count_kv")
                  ? keys.counts("attention.head_count_kv", num_blocks)
                  : heads_;
  read_windows(num_blocks);
  // Layers that use the keys and values of others are not known here.
  if (keys.count_or("attention.shared_kv_layers", 0) != 0) {
    keys.refuse(ErrorCode::kUnsupported, "attention.shared_kv_layers", "is not 0");
  }
  if (!keys.flag_or("attention.causal", true)) {
    keys.refuse(ErrorCode::kUnsupported, "attention.causal", "is false");
  }
  // Angles come from up to four positions, section by section. In text the first three are equal.
  constexpr std::string_view kSections = "rope.dimension_sections";
  if (keys.contains(kSections) && keys.counts(kSections, 4)[3] != 0) {
    keys.refuse(ErrorCode::kUnsupported, kSections, "has a fourth section");
  }
}

AttentionSpec AttentionReader::read(uint32_t layer) const {
  const LayerTensors& tensors = tensors_.layers[layer];
  if (tensors[TensorRole::kRate] || tensors[TensorRole::kRateDecay]) return delta_net();
  if (tensors[TensorRole::kRateUp] || tensors[TensorRole::kRateKeyQuery]) return mamba();
  if (tensors[TensorRole::kSkip]) return mamba2();
  if (tensors[TensorRole::kConvolution]) return short_convolution();
  const bool none = !tensors[TensorRole::kQuery] && !tensors[TensorRole::kQkv] &&
                    !tensors[TensorRole::kQueryDown];
  if (none && row_.one_network_per_layer) {
    AttentionSpec attention;
    attention.kind = AttentionKind::kNone;
    return attention;
  }
  return row_.attention == AttentionKind::kLatent ? latent(layer) : grouped(layer);
}

uint32_t AttentionReader::window_width() const {
  constexpr std::string_view kKey = "attention.sliding_window";
  const WindowRow& window = row_.window;
  if (!keys_.contains(kKey)) {
    if (window.period == 0 || window.absence == WindowAbsence::kNoWindow) return 0;
    if (window.absence == WindowAbsence::kWindow) return window.width;
  }
  // Some files have a width beyond any count that makes sense, which masks nothing.
  const uint32_t width = keys_.count(kKey, UINT32_MAX);
  if (width == 0) return 0;
  if (window.width != 0) return window.width;
  if (window.period != 0 || keys_.contains("attention.sliding_window_pattern")) return width;
  if (width >= spec_.trained_context) return 0;
  keys_.refuse(ErrorCode::kUnsupported, kKey,
               "is set, but which layers use it is not known for this architecture");
}

void AttentionReader::read_windows(uint32_t num_blocks) {
  constexpr std::string_view kPattern = "attention.sliding_window_pattern";
  window_ = window_width();
  has_window_.assign(num_blocks, false);
  if (keys_.is_array(kPattern)) {
    has_window_ = keys_.flags(kPattern, num_blocks);
    return;
  }
  const uint32_t period = keys_.count_or(kPattern, row_.window.period);
  for (uint32_t layer = 0; period != 0 && layer < num_blocks; ++layer) {
    has_window_[layer] = layer % period != (row_.window.full_first ? 0 : period - 1);
  }
}

RopeScaling AttentionReader::scaling() const {
  const std::string name = keys_.text_or("rope.scaling.type", "linear");
  if (name == "none") return RopeScaling::kNone;
  if (name == "yarn") return RopeScaling::kYarn;
  // LongRoPE divides the frequencies by factors that are tensors.
  if (name == "linear" || name == "longrope") return RopeScaling::kLinear;
  keys_.refuse(ErrorCode::kUnsupported, "rope.scaling.type",
               "has the unknown value '" + name + "'");
}

RopeSpec AttentionReader::rope(uint32_t dimensions, bool in_window) const {
  RopeSpec rope;
  rope.pairs = row_.rope;
  rope.dimensions = dimensions;
  rope.base = keys_.value_or("rope.freq_base", 10000.0);
  if (window_ != 0) {
    const double base = keys_.value_or("rope.freq_base_swa", rope.base);
    if (in_window) rope.base = base;
  }
  rope.factor = keys_.value_or("rope.scaling.factor", keys_.value_or("rope.scale_linear", 1.0));
  if (rope.factor == 0.0) rope.factor = 1.0;
  rope.scaling = scaling();
  if (rope.scaling == RopeScaling::kNone) rope.factor = 1.0;
  constexpr std::string_view kOriginal = "rope.scaling.original_context_length";
  rope.original_context = keys_.count_or(kOriginal, spec_.trained_context, SpecKeys::kMaxPositions);
  if (rope.scaling == RopeScaling::kYarn) {
    if (rope.original_context == 0) {
      keys_.refuse(ErrorCode::kFormat, kOriginal, "is missing or 0");
    }
  } else if (rope.factor == 1.0) {
    rope.scaling = RopeScaling::kNone;
  }
  if (!(rope.factor > 0.0) || !(rope.base > 0.0)) {
    keys_.refuse(ErrorCode::kFormat, "rope.scaling.factor", "or rope.freq_base is not positive");
  }
  rope.magnitude = keys_.value_or("rope.scaling.attn_factor", 1.0);
  if (rope.scaling == RopeScaling::kYarn && !keys_.contains("rope.scaling.yarn_log_multiplier")) {
    rope.magnitude *= yarn_magnitude(rope, 0.1);
  }
  const bool switched_off =
      row_.finetuned_key_switches_rotation && !keys_.flag_or("rope.scaling.finetuned", true);
  rope.divides_by_factors = !in_window || row_.window_uses_factors;
  if (row_.rope == RopePairs::kNone || switched_off ||
      (window_ != 0 && !in_window && !row_.rotates_all_layers)) {
    rope = {};
  }
  return rope;
}

void AttentionReader::set_norms(uint32_t layer, AttentionSpec& attention) const {
  attention.qk_norm_after_rope = row_.norms_after_rope;
  attention.norms_values = row_.norms_values;
  if (const BoundTensor& norm = tensors_.layers[layer][TensorRole::kQueryNorm]) {
    const bool per_head = norm.info->columns() * norm.info->rows() == attention.key_size;
    attention.qk_norm = per_head ? QkNorm::kPerHead : QkNorm::kFullWidth;
  } else if (attention.rope.pairs != RopePairs::kNone &&
             (row_.experts_without_norm == 0 ||
              spec_.router.num_experts != row_.experts_without_norm)) {
    attention.qk_norm = row_.unweighted_norm;
  }
}

float AttentionReader::default_scale(uint32_t key_size) const {
  if (row_.attention_scale != 0.0f) return row_.attention_scale;
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(key_size)));
}

AttentionSpec AttentionReader::grouped(uint32_t layer) const {
  const LayerTensors& tensors = tensors_.layers[layer];
  AttentionSpec attention;
  attention.kind = AttentionKind::kGrouped;
  attention.num_heads = static_cast<uint32_t>(heads_[layer]);
  attention.num_kv_heads = static_cast<uint32_t>(kv_heads_[layer]);
  if (attention.num_heads == 0 || attention.num_kv_heads == 0) {
    keys_.refuse(ErrorCode::kUnsupported, "attention.head_count",
                 "is 0 for layer " + std::to_string(layer));
  }
  const bool in_window = window_ != 0 && has_window_[layer];
  if (in_window) {
    attention.window = window_;
    attention.window_is_chunk = row_.window.is_chunk;
  }
  const auto size = [&](const std::string& name, uint32_t fallback) {
    const uint32_t everywhere = keys_.count_or(name, fallback);
    const uint32_t in_windows =
        window_ == 0 ? everywhere : keys_.count_or(name + "_swa", everywhere);
    return in_window ? in_windows : everywhere;
  };
  const uint32_t default_size = spec_.width / attention.num_heads;
  attention.key_size = size("attention.key_length", default_size);
  attention.value_size = size("attention.value_length", default_size);
  attention.rope = rope(size("rope.dimension_count", attention.key_size), in_window);
  set_norms(layer, attention);
  const BoundTensor& query = tensors[TensorRole::kQuery];
  if (tensors[TensorRole::kAttentionGate]) {
    attention.gate = AttentionGate::kOwnMatrix;
  } else if (query &&
             query.info->rows() == uint64_t{2} * attention.num_heads * attention.key_size) {
    attention.gate = AttentionGate::kBesideQuery;
  }
  attention.values_are_keys =
      row_.values_may_be_keys && !tensors[TensorRole::kQkv] && !tensors[TensorRole::kValue];
  attention.position_buckets = keys_.count_or("attention.relative_buckets_count", 0);
  if (attention.position_buckets != 0) {
    attention.bucket_distance = keys_.count_or("attention.relative_max_distance", 128);
  }
  const double scale =
      keys_.value_or("attention.scale", keys_.value_or("attention.output_scale", 0.0));
  attention.scale = scale != 0.0 ? static_cast<float>(scale) : default_scale(attention.key_size);
  attention.softcap = static_cast<float>(
      keys_.value_or("attn_logit_softcapping", static_cast<double>(row_.attention_softcap)));
  attention.qkv_clamp = static_cast<float>(keys_.value_or("attention.clamp_kqv", 0.0));
  if (attention.rope.pairs == RopePairs::kNone) {
    attention.temperature_length = row_.temperature_length;
    attention.temperature_scale = row_.temperature_scale;
  }
  return attention;
}

// MLA (DeepSeek-V2, arXiv 2405.04434). Newer files give head sizes under *_mla keys; in older
// ones key_length and value_length describe a head after decompression.
AttentionSpec AttentionReader::latent(uint32_t layer) const {
  AttentionSpec attention;
  attention.kind = AttentionKind::kLatent;
  attention.num_heads = static_cast<uint32_t>(heads_[layer]);
  attention.num_kv_heads = 1;
  const uint32_t head_key_size =
      keys_.count_or("attention.key_length_mla", keys_.count("attention.key_length"));
  attention.head_value_size =
      keys_.count_or("attention.value_length_mla", keys_.count("attention.value_length"));
  attention.rope = rope(keys_.count("rope.dimension_count"), false);
  if (head_key_size <= attention.rope.dimensions) {
    keys_.refuse(ErrorCode::kFormat, "rope.dimension_count", "leaves nothing of a head unrotated");
  }
  attention.content_size = head_key_size - attention.rope.dimensions;
  attention.latent_size = keys_.count("attention.kv_lora_rank");
  const uint32_t query_rank = keys_.count_or("attention.q_lora_rank", 0);
  if (tensors_.layers[layer][TensorRole::kQueryDown]) {
    attention.query_rank = query_rank != 0 ? query_rank : keys_.count("attention.q_lora_rank");
  }
  attention.key_size = attention.latent_size + attention.rope.dimensions;
  attention.value_size = attention.latent_size;
  double magnitude = 1.0;
  if (row_.scales_attention_by_yarn && attention.rope.scaling == RopeScaling::kYarn) {
    magnitude =
        attention.rope.magnitude *
        yarn_magnitude(attention.rope, keys_.value_or("rope.scaling.yarn_log_multiplier", 0.0));
  }
  attention.scale =
      static_cast<float>(magnitude * magnitude / std::sqrt(static_cast<double>(head_key_size)));
  return attention;
}

AttentionSpec AttentionReader::short_convolution() const {
  AttentionSpec attention;
  attention.kind = AttentionKind::kShortConvolution;
  attention.convolution_taps = keys_.count("shortconv.l_cache");
  return attention;
}

AttentionSpec AttentionReader::state_space(AttentionKind kind) const {
  AttentionSpec attention;
  attention.kind = kind;
  attention.convolution_taps = keys_.count("ssm.conv_kernel");
  attention.num_heads = keys_.count("ssm.time_step_rank");
  attention.num_kv_heads = keys_.count("ssm.group_count");
  attention.key_size = keys_.count("ssm.state_size");
  const uint32_t values = keys_.count("ssm.inner_size");
  if (attention.num_heads == 0 || values % attention.num_heads != 0) {
    keys_.refuse(ErrorCode::kFormat, "ssm.inner_size", "is not a multiple of ssm.time_step_rank");
  }
  attention.value_size = values / attention.num_heads;
  return attention;
}

AttentionSpec AttentionReader::mamba2() const {
  return state_space(AttentionKind::kMamba2);
}

AttentionSpec AttentionReader::mamba() const {
  AttentionSpec attention;
  attention.kind = AttentionKind::kMamba;
  attention.convolution_taps = keys_.count("ssm.conv_kernel");
  attention.num_heads = 1;
  attention.num_kv_heads = 1;
  attention.key_size = keys_.count("ssm.state_size");
  attention.value_size = keys_.count("ssm.inner_size");
  attention.rate_rank = keys_.count("ssm.time_step_rank");
  return attention;
}

AttentionSpec AttentionReader::delta_net() const {
  AttentionSpec attention = state_space(AttentionKind::kDeltaNet);
  attention.key_heads_take_turns = row_.key_heads_take_turns;
  // Which layers these are, the tensors say.
  keys_.count_or("full_attention_interval", 0);
  return attention;
}

}  // namespace edgemoe
