#include "weights/tensor_names.h"

#include <charconv>
#include <span>

namespace edgemoe {
namespace {

struct RoleName {
  TensorRole role;
  std::string_view name;
};

using enum TensorRole;

constexpr RoleName kModelNames[] = {
    {kTokenEmbedding, "token_embd.weight"},
    {kEncoderNorm, "enc.output_norm.weight"},
    {kOutputNorm, "output_norm.weight"},
    {kOutputNorm, "dec.output_norm.weight"},
    {kOutputNorm, "token_embd_norm.weight"},
    {kOutputNormBias, "output_norm.bias"},
    {kOutput, "output.weight"},
    {kOutputBias, "output.bias"},
    {kRopeFactors, "rope_freqs.weight"},
    {kRopeFactors, "rope_factors_short.weight"},
    {kRopeFactorsLong, "rope_factors_long.weight"},
};

constexpr RoleName kLayerNames[] = {
    {kAttentionNorm, "attn_norm.weight"},
    {kAttentionNormBias, "attn_norm.bias"},
    {kQuery, "attn_q.weight"},
    {kQueryBias, "attn_q.bias"},
    {kKey, "attn_k.weight"},
    {kKeyBias, "attn_k.bias"},
    {kValue, "attn_v.weight"},
    {kValueBias, "attn_v.bias"},
    {kQkv, "attn_qkv.weight"},
    {kQkvBias, "attn_qkv.bias"},
    {kAttentionOutput, "attn_output.weight"},
    {kAttentionOutput, "attn_o.weight"},
    {kAttentionOutputBias, "attn_output.bias"},
    {kQueryNorm, "attn_q_norm.weight"},
    {kKeyNorm, "attn_k_norm.weight"},
    {kSinks, "attn_sinks.weight"},
    {kPositionBias, "attn_rel_b.weight"},
    {kCrossNorm, "cross_attn_norm.weight"},
    {kCrossQuery, "cross_attn_q.weight"},
    {kCrossKey, "cross_attn_k.weight"},
    {kCrossValue, "cross_attn_v.weight"},
    {kCrossOutput, "cross_attn_o.weight"},
    {kPostAttentionNorm, "post_attention_norm.weight"},
    {kPostAttentionNorm, "attn_output_norm.weight"},
    {kQueryDown, "attn_q_a.weight"},
    {kQueryDownNorm, "attn_q_a_norm.weight"},
    {kQueryUp, "attn_q_b.weight"},
    {kLatentDown, "attn_kv_a_mqa.weight"},
    {kLatentNorm, "attn_kv_a_norm.weight"},
    {kLatentUp, "attn_kv_b.weight"},
    {kKeyAbsorb, "attn_k_b.weight"},
    {kValueUp, "attn_v_b.weight"},
    {kAttentionGate, "attn_gate.weight"},
    {kConvolution, "shortconv.conv.weight"},
    {kConvolution, "ssm_conv1d.weight"},
    {kConvolutionBias, "ssm_conv1d.bias"},
    {kRecurrentIn, "shortconv.in_proj.weight"},
    {kRecurrentIn, "ssm_in.weight"},
    {kRecurrentOut, "shortconv.out_proj.weight"},
    {kRecurrentOut, "ssm_out.weight"},
    {kRate, "ssm_beta.weight"},
    {kDecay, "ssm_alpha.weight"},
    {kRateDecay, "ssm_ba.weight"},
    {kDecayBias, "ssm_dt.bias"},
    {kDecayCoefficient, "ssm_a"},
    {kStateNorm, "ssm_norm.weight"},
    {kSkip, "ssm_d"},
    {kRateKeyQuery, "ssm_x.weight"},
    {kRateUp, "ssm_dt.weight"},
    {kRateNorm, "ssm_dt_norm.weight"},
    {kStateKeyNorm, "ssm_b_norm.weight"},
    {kStateQueryNorm, "ssm_c_norm.weight"},
    {kRopeFactors, "rope_freqs.weight"},
    {kFfnNorm, "ffn_norm.weight"},
    {kFfnNormBias, "ffn_norm.bias"},
    {kFfnPostNorm, "post_ffw_norm.weight"},
    {kFfnPostNorm, "layer_output_norm.weight"},
    {kSharedPostNorm, "post_ffw_norm_1.weight"},
    {kExpertNorm, "pre_ffw_norm_2.weight"},
    {kExpertNorm, "ffn_norm_exps.weight"},
    {kExpertPostNorm, "post_ffw_norm_2.weight"},
    {kExpertNarrow, "ffn_latent_down.weight"},
    {kExpertWiden, "ffn_latent_up.weight"},
    {kLayerScale, "layer_output_scale.weight"},
    {kFfnGate, "ffn_gate.weight"},
    {kFfnUp, "ffn_up.weight"},
    {kFfnDown, "ffn_down.weight"},
    {kRouter, "ffn_gate_inp.weight"},
    {kRouterBias, "ffn_gate_inp.bias"},
    {kRouterNorm, "ffn_gate_inp.scale"},
    {kSelectionBias, "exp_probs_b.bias"},
    {kSelectionBias, "exp_probs_b"},
    {kExpertGateBias, "ffn_gate_exps.bias"},
    {kExpertUpBias, "ffn_up_exps.bias"},
    {kExpertDownBias, "ffn_down_exps.bias"},
    {kSharedGate, "ffn_gate_shexp.weight"},
    {kSharedUp, "ffn_up_shexp.weight"},
    {kSharedDown, "ffn_down_shexp.weight"},
    {kSharedRouter, "ffn_gate_inp_shexp.weight"},
};

struct ExpertName {
  std::string_view stem;
  ExpertMatrix matrix;
  bool fused_gate_up;
};

// "<stem>_exps.weight", and "<stem>.E.weight" in old files; "<stem>.E.low.weight" is a low copy.
constexpr ExpertName kExpertNames[] = {
    {"ffn_gate_up", ExpertMatrix::kGate, true},
    {"ffn_gate", ExpertMatrix::kGate, false},
    {"ffn_up", ExpertMatrix::kUp, false},
    {"ffn_down", ExpertMatrix::kDown, false},
};

// Precomputed by old converters and recomputed by every engine.
constexpr std::string_view kIgnoredSuffixes[] = {"attn_rot_embd", "rotary_emb.inv_freq"};

constexpr std::string_view kScaleSuffix = ".scale";
constexpr std::string_view kWeightSuffix = ".weight";
constexpr std::string_view kLowCopySuffix = ".low";

std::optional<TensorRole> find_role(std::span<const RoleName> names, std::string_view name) {
  for (const RoleName& entry : names) {
    if (entry.name == name) return entry.role;
  }
  return std::nullopt;
}

std::optional<uint32_t> parse_number(std::string_view digits) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return number;
}

// "ffn_up_exps", "ffn_up.7" or "ffn_up.7.low", without the ".weight".
std::optional<TensorMeaning> expert_meaning(std::string_view base) {
  for (const ExpertName& entry : kExpertNames) {
    if (!base.starts_with(entry.stem)) continue;
    std::string_view rest = base.substr(entry.stem.size());
    TensorMeaning meaning;
    meaning.scope = TensorScope::kLayer;
    meaning.expert_matrix = entry.matrix;
    meaning.fused_gate_up = entry.fused_gate_up;
    if (rest == "_exps") return meaning;
    if (rest.starts_with('.') && !entry.fused_gate_up) {
      meaning.is_low_copy = rest.size() > kLowCopySuffix.size() && rest.ends_with(kLowCopySuffix);
      if (meaning.is_low_copy) rest.remove_suffix(kLowCopySuffix.size());
      meaning.expert = parse_number(rest.substr(1));
      if (meaning.expert) return meaning;
    }
  }
  return std::nullopt;
}

// Meaning of "X.weight", or of "X.scale" as the scale beside it.
std::optional<TensorMeaning> find_meaning(std::span<const RoleName> names, std::string_view name) {
  TensorMeaning meaning;
  meaning.role = find_role(names, name);
  if (meaning.role) return meaning;
  std::string weight_name(name);
  if (name.ends_with(kScaleSuffix)) {
    meaning.is_scale = true;
    weight_name.replace(name.size() - kScaleSuffix.size(), kScaleSuffix.size(), kWeightSuffix);
  }
  meaning.role = find_role(names, weight_name);
  if (meaning.role) return meaning;
  if (!weight_name.ends_with(kWeightSuffix)) return std::nullopt;
  const bool is_scale = meaning.is_scale;
  auto expert = expert_meaning(
      std::string_view(weight_name).substr(0, weight_name.size() - kWeightSuffix.size()));
  if (expert && expert->is_low_copy && is_scale) return std::nullopt;  // it has the expert's
  if (expert) expert->is_scale = is_scale;
  return expert;
}

constexpr std::string_view kLayerPrefix = "blk.";
// In the order of LayerStack.
constexpr std::string_view kStackPrefixes[] = {kLayerPrefix, "enc.blk.", "dec.blk."};

}  // namespace

std::optional<BlockName> block_of(std::string_view name) noexcept {
  for (size_t stack = 0; stack < std::size(kStackPrefixes); ++stack) {
    const std::string_view prefix = kStackPrefixes[stack];
    if (!name.starts_with(prefix)) continue;
    const size_t dot = name.find('.', prefix.size());
    if (dot == std::string_view::npos) return std::nullopt;
    const auto number = parse_number(name.substr(prefix.size(), dot - prefix.size()));
    if (!number) return std::nullopt;
    return BlockName{static_cast<LayerStack>(stack), *number, name.substr(dot + 1)};
  }
  return std::nullopt;
}

std::string block_name(uint32_t layer, uint32_t num_encoder_layers) {
  if (num_encoder_layers == 0) return std::string(kLayerPrefix) + std::to_string(layer);
  const bool in_encoder = layer < num_encoder_layers;
  const auto stack = in_encoder ? LayerStack::kEncoder : LayerStack::kDecoder;
  const uint32_t number = in_encoder ? layer : layer - num_encoder_layers;
  return std::string(kStackPrefixes[static_cast<size_t>(stack)]) + std::to_string(number);
}

std::optional<TensorMeaning> meaning_of(std::string_view name) {
  const std::optional<BlockName> block = block_of(name);
  if (!block) {
    auto meaning = find_meaning(kModelNames, name);
    if (meaning && meaning->expert_matrix) return std::nullopt;
    return meaning;
  }
  for (const std::string_view ignored : kIgnoredSuffixes) {
    if (!block->rest.starts_with(ignored)) continue;
    TensorMeaning meaning;
    meaning.scope = TensorScope::kIgnored;
    return meaning;
  }
  auto meaning = find_meaning(kLayerNames, block->rest);
  if (meaning) {
    meaning->scope = TensorScope::kLayer;
    meaning->layer = block->number;
  }
  return meaning;
}

namespace {

std::string_view stem_of(ExpertMatrix matrix) noexcept {
  for (const ExpertName& entry : kExpertNames) {
    if (entry.matrix == matrix && !entry.fused_gate_up) return entry.stem;
  }
  return {};
}

std::string expert_stem(uint32_t layer, ExpertMatrix matrix) {
  return std::string(kLayerPrefix) + std::to_string(layer) + '.' + std::string(stem_of(matrix));
}

}  // namespace

std::string expert_name(uint32_t layer, ExpertMatrix matrix, uint32_t expert) {
  return expert_stem(layer, matrix) + '.' + std::to_string(expert) + std::string(kWeightSuffix);
}

std::string low_copy_name(uint32_t layer, ExpertMatrix matrix, uint32_t expert) {
  return expert_stem(layer, matrix) + '.' + std::to_string(expert) + std::string(kLowCopySuffix) +
         std::string(kWeightSuffix);
}

std::string expert_stack_name(uint32_t layer, ExpertMatrix matrix) {
  return expert_stem(layer, matrix) + "_exps" + std::string(kWeightSuffix);
}

std::string half_of_fused_name(std::string_view name, ExpertMatrix matrix) {
  constexpr std::string_view kFusedStem = kExpertNames[0].stem;
  static_assert(kExpertNames[0].fused_gate_up);
  std::string half(name);
  const size_t at = half.find(kFusedStem);
  if (at != std::string::npos) half.replace(at, kFusedStem.size(), stem_of(matrix));
  return half;
}

std::string_view role_name(TensorRole role) noexcept {
  for (const RoleName& entry : kLayerNames) {
    if (entry.role == role) return entry.name;
  }
  for (const RoleName& entry : kModelNames) {
    if (entry.role == role) return entry.name;
  }
  return "?";
}

}  // namespace edgemoe
