#include "model/architectures.h"

namespace edgemoe {
namespace {

using kernels::Activation;

constexpr ArchitectureRow kArchitectures[] = {
    {.name = "llama", .rope = RopePairs::kNeighbours},
    {.name = "qwen2moe", .renormalise = Renormalise::kNo},
    {.name = "qwen3moe"},
    {.name = "olmoe", .renormalise = Renormalise::kNo},
    {.name = "granitemoe", .rope = RopePairs::kNeighbours},
    {.name = "gpt-oss",
     .score = RouterScore::kSoftmaxTopK,
     .renormalise = Renormalise::kNo,
     .activation = Activation::kSwigluOai,
     .activation_limit = 7.0f,
     .window = {.period = 2}},
    {.name = "deepseek2",
     .attention = AttentionKind::kLatent,
     .rope = RopePairs::kNeighbours,
     .renormalise = Renormalise::kFromMetadata,
     .scales_attention_by_yarn = true},
    {.name = "glm4moe", .score = RouterScore::kSigmoid, .renormalise = Renormalise::kFromMetadata},
    {.name = "phimoe"},
    {.name = "ernie4_5-moe", .rope = RopePairs::kNeighbours},
    {.name = "hunyuan-moe", .norms_after_rope = true},
    {.name = "dots1", .renormalise = Renormalise::kFromMetadata},
    {.name = "bailingmoe2", .renormalise = Renormalise::kFromMetadata},
    {.name = "minimax-m2"},
    {.name = "llama4",
     .rope = RopePairs::kNeighbours,
     .score = RouterScore::kSigmoid,
     .renormalise = Renormalise::kNo,
     .window = {.period = 4, .is_chunk = true, .width = 8192, .absence = WindowAbsence::kWindow},
     .rotates_all_layers = false,
     .unweighted_norm = QkNorm::kPerHeadUnweighted,
     .experts_without_norm = 128,
     .norms_after_rope = true,
     .temperature_length = 8192,
     .temperature_scale = 0.1f,
     .weight_before_ffn = true},
    {.name = "dbrx"},
    {.name = "minicpm", .rope = RopePairs::kNeighbours, .scales = ScaleRule::kMiniCpm},
    {.name = "smallthinker",
     .activation = Activation::kRelu,
     .window =
         {.period = 4, .full_first = true, .width = 4096, .absence = WindowAbsence::kNoWindow},
     .rotates_all_layers = false,
     .router_reads_block_input = true},
    {.name = "gemma4",
     .activation = Activation::kGelu,
     .window_uses_factors = false,
     .norms_values = true,
     .values_may_be_keys = true,
     .attention_scale = 1.0f,
     .scales_embedding_by_width = true},
    {.name = "lfm2moe"},
    {.name = "qwen3next"},
    {.name = "qwen35moe", .key_heads_take_turns = true},
    {.name = "exaone-moe",
     .score = RouterScore::kSigmoid,
     .renormalise = Renormalise::kFromMetadata,
     .window = {.period = 4},
     .rotates_all_layers = false},
    {.name = "deepseek", .rope = RopePairs::kNeighbours, .renormalise = Renormalise::kNo},
    {.name = "afmoe",
     .score = RouterScore::kSigmoid,
     .renormalise = Renormalise::kUnlessDenied,
     .window = {.period = 4, .absence = WindowAbsence::kNoWindow},
     .rotates_all_layers = false,
     .scales_embedding_by_width = true},
    {.name = "arctic", .rope = RopePairs::kNeighbours, .experts_read_block_input = true},
    {.name = "granitehybrid",
     .rope = RopePairs::kNeighbours,
     .finetuned_key_switches_rotation = true},
    {.name = "nemotron_h_moe",
     .rope = RopePairs::kNone,
     .score = RouterScore::kSigmoid,
     .renormalise = Renormalise::kFromMetadata,
     .activation = Activation::kRelu,
     .gated_networks = false,
     .only_rms_norms = true,
     .one_network_per_layer = true},
    {.name = "jamba", .rope = RopePairs::kNone, .renormalise = Renormalise::kNo},
    {.name = "grok",
     .activation = Activation::kGelu,
     .attention_scale = 0.08838834764831845f,
     .attention_softcap = 30.0f,
     .embedding_scale = 78.38367176906169f,
     .logit_factor = 0.5773502691896257f,
     .scale_beside_dense = 0.7071067811865476f},
    {.name = "switch-transformers",
     .rope = RopePairs::kNone,
     .renormalise = Renormalise::kNo,
     .activation = Activation::kStep,
     .gated_networks = false,
     .attention_scale = 1.0f,
     .has_encoder = true},
};

}  // namespace

std::span<const ArchitectureRow> architectures() noexcept {
  return kArchitectures;
}

const ArchitectureRow* find_architecture(std::string_view name) noexcept {
  for (const ArchitectureRow& row : kArchitectures) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

}  // namespace edgemoe
