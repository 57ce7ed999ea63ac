#include "model/spec_validation.h"

#include <cmath>

#include "base/error.h"
#include "model/recurrent_state.h"
#include "weights/tensor_names.h"

namespace edgemoe {
namespace {

void require(bool condition, const std::string& source, const std::string& what) {
  if (!condition) throw Error(ErrorCode::kFormat, source + ": " + what);
}

void validate_router(const RouterSpec& router, const std::string& source) {
  if (router.num_experts == 0) return;
  require(router.num_used >= 1 && router.num_used <= router.num_experts, source,
          "expert_used_count (" + std::to_string(router.num_used) +
              ") is not between 1 and expert_count (" + std::to_string(router.num_experts) + ")");
  require(router.num_groups <= router.num_experts && router.num_experts % router.num_groups == 0 &&
              router.num_groups_used >= 1 && router.num_groups_used <= router.num_groups,
          source, "expert_group_count or expert_group_used_count does not fit expert_count");
  require(router.num_used <= router.num_groups_used * (router.num_experts / router.num_groups),
          source, "expert_used_count is larger than the chosen groups hold");
  require(std::isfinite(router.weight_scale), source, "expert_weights_scale is not finite");
}

void validate_attention(const AttentionSpec& attention, const std::string& where) {
  if (is_recurrent(attention.kind)) {
    require(attention.convolution_taps >= 2, where, "its convolution has less than 2 taps");
    if (attention.kind == AttentionKind::kShortConvolution) return;
  }
  if (attention.kind == AttentionKind::kNone) return;
  require(attention.num_heads >= 1 && attention.num_kv_heads >= 1, where, "head_count is 0");
  require(attention.num_heads % attention.num_kv_heads == 0, where,
          "head_count is not a multiple of head_count_kv");
  require(attention.key_size >= 1 && attention.value_size >= 1, where, "a head has size 0");
  require(attention.rope.dimensions % 2 == 0, where, "rope.dimension_count is odd");
  require(attention.rope.dimensions <= attention.key_size, where,
          "rope.dimension_count is larger than a head");
  require(std::isfinite(attention.scale), where, "attention.scale is not finite");
  require(
      attention.gate != AttentionGate::kBesideQuery ||
          (attention.qk_norm != QkNorm::kFullWidth && attention.key_size == attention.value_size),
      where, "attn_q.weight holds gates, which do not fit values or norm");
  require(!attention.values_are_keys || attention.key_size == attention.value_size, where,
          "attention.value_length is not attention.key_length, and attn_v.weight is missing");
}

// Buckets are shared out by model/position_bias.h.
void validate_buckets(const AttentionSpec& attention, const std::string& where) {
  if (attention.position_buckets == 0) return;
  const uint32_t one_way =
      attention.causal ? attention.position_buckets : attention.position_buckets / 2;
  require(one_way >= 2, where, "attention.relative_buckets_count is too small");
  require(attention.bucket_distance > one_way / 2, where,
          "attention.relative_max_distance is within the buckets of single distances");
  require(attention.kind == AttentionKind::kGrouped, where,
          "attention.relative_buckets_count does not fit its kind of attention");
}

std::string_view name_of(ExpertMatrix matrix) {
  constexpr std::string_view kNames[] = {"ffn_gate", "ffn_up", "ffn_down"};
  return kNames[static_cast<size_t>(matrix)];
}

// Checks the tensors of one layer against the roles that the forward pass will ask for.
class LayerCheck {
 public:
  LayerCheck(const ModelSpec& spec, const ModelTensors& tensors, uint32_t layer,
             const std::string& source)
      : spec_(spec),
        tensors_(tensors.layers[layer]),
        is_first_(layer == 0 || layer == spec.num_encoder_layers),
        where_(source + ": " + block_name(layer, spec.num_encoder_layers) + ".") {}

  void run(const LayerSpec& layer) {
    vector(TensorRole::kAttentionNorm, spec_.width);
    attention(layer.attention);
    cross_attention(layer.cross);
    optional_vector(TensorRole::kAttentionNormBias, spec_.width);
    optional_vector(TensorRole::kFfnNormBias, spec_.width);
    optional_vector(TensorRole::kRopeFactors, layer.attention.rope.dimensions / 2);
    // Some families call the norm before the FFN by the other name.
    const bool named_post = !tensors_[TensorRole::kFfnNorm];
    if (layer.attention.kind != AttentionKind::kNone && layer.ffn.kind != FfnKind::kNone) {
      vector(named_post ? TensorRole::kPostAttentionNorm : TensorRole::kFfnNorm, spec_.width);
    }
    optional_vector(TensorRole::kPostAttentionNorm, spec_.width);
    optional_vector(TensorRole::kFfnPostNorm, spec_.width);
    optional_vector(TensorRole::kLayerScale, 1);
    if (layer.ffn.kind == FfnKind::kDense) {
      dense_ffn(layer.ffn);
    } else if (layer.ffn.kind == FfnKind::kMoe) {
      moe_ffn(layer.ffn);
    }
    refuse_unused();
  }

 private:
  [[noreturn]] void fail(ErrorCode code, TensorRole role, const std::string& what) const {
    throw Error(code, where_ + std::string(role_name(role)) + " " + what);
  }

  bool matrix_of(TensorRole role, uint64_t rows, uint64_t columns, bool required) {
    used_[static_cast<size_t>(role)] = true;
    const BoundTensor& bound = tensors_[role];
    if (!bound) {
      if (required) fail(ErrorCode::kFormat, role, "is missing; the file is incomplete");
      return false;
    }
    if (bound.info->columns() != columns || bound.info->rows() != rows) {
      // Roles have several names; that of the file is meant.
      const std::optional<BlockName> name = block_of(bound.info->name);
      throw Error(ErrorCode::kFormat, where_ + std::string(name ? name->rest : bound.info->name) +
                                          " has " + std::to_string(bound.info->columns()) +
                                          " columns and " + std::to_string(bound.info->rows()) +
                                          " rows; expected " + std::to_string(columns) + " and " +
                                          std::to_string(rows));
    }
    return true;
  }
  void matrix(TensorRole role, uint64_t rows, uint64_t columns) {
    matrix_of(role, rows, columns, true);
  }
  void vector(TensorRole role, uint64_t size) { matrix_of(role, 1, size, true); }
  void optional_vector(TensorRole role, uint64_t size) { matrix_of(role, 1, size, false); }

  void attention(const AttentionSpec& attention) {
    switch (attention.kind) {
      case AttentionKind::kGrouped:
        return grouped(attention);
      case AttentionKind::kLatent:
        return latent(attention);
      case AttentionKind::kShortConvolution:
        matrix(TensorRole::kConvolution, spec_.width, attention.convolution_taps);
        matrix(TensorRole::kRecurrentIn, 3 * uint64_t{spec_.width}, spec_.width);
        return matrix(TensorRole::kRecurrentOut, spec_.width, spec_.width);
      case AttentionKind::kDeltaNet:
        return delta(attention);
      case AttentionKind::kMamba2:
        return mamba2(attention);
      case AttentionKind::kMamba:
        return mamba(attention);
      case AttentionKind::kNone:
        return;
    }
  }

  void delta(const AttentionSpec& attention) {
    const uint64_t heads = attention.num_heads;
    const uint64_t values = heads * attention.value_size;
    const uint64_t channels = convolution_channels(attention, spec_.width);
    // Old files have both in one, key head by key head.
    if (tensors_[TensorRole::kRecurrentIn] && !attention.key_heads_take_turns) {
      matrix(TensorRole::kRecurrentIn, channels + values, spec_.width);
    } else {
      matrix(TensorRole::kQkv, channels, spec_.width);
      matrix(TensorRole::kAttentionGate, values, spec_.width);
    }
    matrix(TensorRole::kConvolution, channels, attention.convolution_taps);
    if (tensors_[TensorRole::kRateDecay]) {
      matrix(TensorRole::kRateDecay, 2 * heads, spec_.width);
    } else {
      matrix(TensorRole::kRate, heads, spec_.width);
      matrix(TensorRole::kDecay, heads, spec_.width);
    }
    vector(TensorRole::kDecayBias, heads);
    vector(TensorRole::kDecayCoefficient, heads);
    vector(TensorRole::kStateNorm, attention.value_size);
    matrix(TensorRole::kRecurrentOut, spec_.width, values);
  }

  void mamba(const AttentionSpec& attention) {
    const uint64_t channels = attention.value_size;
    const uint64_t state = attention.key_size;
    matrix(TensorRole::kRecurrentIn, 2 * channels, spec_.width);
    matrix(TensorRole::kConvolution, channels, attention.convolution_taps);
    optional_vector(TensorRole::kConvolutionBias, channels);
    matrix(TensorRole::kRateKeyQuery, attention.rate_rank + 2 * state, channels);
    matrix(TensorRole::kRateUp, channels, attention.rate_rank);
    vector(TensorRole::kDecayBias, channels);
    matrix(TensorRole::kDecayCoefficient, channels, state);
    vector(TensorRole::kSkip, channels);
    vector(TensorRole::kRateNorm, attention.rate_rank);
    vector(TensorRole::kStateKeyNorm, state);
    vector(TensorRole::kStateQueryNorm, state);
    matrix(TensorRole::kRecurrentOut, spec_.width, channels);
  }

  void mamba2(const AttentionSpec& attention) {
    const uint64_t heads = attention.num_heads;
    const uint64_t values = heads * attention.value_size;
    const uint64_t channels = convolution_channels(attention, spec_.width);
    matrix(TensorRole::kRecurrentIn, values + channels + heads, spec_.width);
    matrix(TensorRole::kConvolution, channels, attention.convolution_taps);
    optional_vector(TensorRole::kConvolutionBias, channels);
    vector(TensorRole::kDecayBias, heads);
    matrix(TensorRole::kDecayCoefficient, heads, 1);
    matrix(TensorRole::kSkip, heads, 1);
    matrix(TensorRole::kStateNorm, attention.num_kv_heads, values / attention.num_kv_heads);
    matrix(TensorRole::kRecurrentOut, spec_.width, values);
  }

  void grouped(const AttentionSpec& attention) {
    const uint64_t query = uint64_t{attention.num_heads} * attention.key_size;
    const uint64_t key = uint64_t{attention.num_kv_heads} * attention.key_size;
    const uint64_t value = uint64_t{attention.num_kv_heads} * attention.value_size;
    if (tensors_[TensorRole::kQkv]) {
      matrix(TensorRole::kQkv, query + key + value, spec_.width);
      optional_vector(TensorRole::kQkvBias, query + key + value);
    } else {
      const uint64_t with_gate = attention.gate == AttentionGate::kBesideQuery ? 2 * query : query;
      matrix(TensorRole::kQuery, with_gate, spec_.width);
      matrix(TensorRole::kKey, key, spec_.width);
      if (!attention.values_are_keys) matrix(TensorRole::kValue, value, spec_.width);
      optional_vector(TensorRole::kQueryBias, with_gate);
      optional_vector(TensorRole::kKeyBias, key);
      optional_vector(TensorRole::kValueBias, value);
    }
    matrix(TensorRole::kAttentionOutput, spec_.width,
           uint64_t{attention.num_heads} * attention.value_size);
    optional_vector(TensorRole::kAttentionOutputBias, spec_.width);
    optional_vector(TensorRole::kSinks, attention.num_heads);
    if (attention.position_buckets != 0 && is_first_) {
      matrix(TensorRole::kPositionBias, attention.position_buckets, attention.num_heads);
    }
    if (attention.gate == AttentionGate::kOwnMatrix) {
      matrix(TensorRole::kAttentionGate, uint64_t{attention.num_heads} * attention.value_size,
             spec_.width);
    }
    if (attention.qk_norm == QkNorm::kPerHead || attention.qk_norm == QkNorm::kFullWidth) {
      const bool full = attention.qk_norm == QkNorm::kFullWidth;
      vector(TensorRole::kQueryNorm, full ? query : attention.key_size);
      vector(TensorRole::kKeyNorm, full ? key : attention.key_size);
    }
  }

  void latent(const AttentionSpec& attention) {
    const uint64_t heads = attention.num_heads;
    const uint64_t query = heads * (attention.content_size + attention.rope.dimensions);
    if (attention.query_rank != 0) {
      matrix(TensorRole::kQueryDown, attention.query_rank, spec_.width);
      vector(TensorRole::kQueryDownNorm, attention.query_rank);
      matrix(TensorRole::kQueryUp, query, attention.query_rank);
    } else {
      matrix(TensorRole::kQuery, query, spec_.width);
    }
    matrix(TensorRole::kLatentDown, attention.latent_size + attention.rope.dimensions, spec_.width);
    vector(TensorRole::kLatentNorm, attention.latent_size);
    if (tensors_[TensorRole::kLatentUp]) {
      matrix(TensorRole::kLatentUp, heads * (attention.content_size + attention.head_value_size),
             attention.latent_size);
    } else {
      matrix(TensorRole::kKeyAbsorb, heads * attention.latent_size, attention.content_size);
      matrix(TensorRole::kValueUp, heads * attention.head_value_size, attention.latent_size);
    }
    matrix(TensorRole::kAttentionOutput, spec_.width, heads * attention.head_value_size);
    optional_vector(TensorRole::kAttentionOutputBias, spec_.width);
  }

  void cross_attention(const AttentionSpec& attention) {
    if (attention.kind == AttentionKind::kNone) return;
    const uint64_t values = uint64_t{attention.num_heads} * attention.value_size;
    vector(TensorRole::kCrossNorm, spec_.width);
    matrix(TensorRole::kCrossQuery, uint64_t{attention.num_heads} * attention.key_size,
           spec_.width);
    matrix(TensorRole::kCrossKey, uint64_t{attention.num_kv_heads} * attention.key_size,
           spec_.width);
    matrix(TensorRole::kCrossValue, uint64_t{attention.num_kv_heads} * attention.value_size,
           spec_.width);
    matrix(TensorRole::kCrossOutput, spec_.width, values);
  }

  void dense_ffn(const FfnSpec& ffn) {
    if (spec_.gated_networks) matrix(TensorRole::kFfnGate, ffn.width, spec_.width);
    matrix(TensorRole::kFfnUp, ffn.width, spec_.width);
    matrix(TensorRole::kFfnDown, spec_.width, ffn.width);
  }

  void moe_ffn(const FfnSpec& ffn) {
    const uint64_t experts = spec_.router.num_experts;
    matrix(TensorRole::kRouter, experts, spec_.width);
    optional_vector(TensorRole::kRouterBias, experts);
    optional_vector(TensorRole::kRouterNorm, spec_.width);
    if (ffn.narrow_width != 0) {
      narrow_experts(ffn);
    } else {
      optional_vector(TensorRole::kExpertNorm, spec_.width);
      optional_vector(TensorRole::kExpertPostNorm, spec_.width);
    }
    optional_vector(TensorRole::kSelectionBias, experts);
    matrix_of(TensorRole::kExpertGateBias, experts, ffn.width, false);
    matrix_of(TensorRole::kExpertUpBias, experts, ffn.width, false);
    matrix_of(TensorRole::kExpertDownBias, experts, stream_width(ffn), false);
    if (ffn.shared_width != 0) {
      const bool dense = static_cast<bool>(tensors_[TensorRole::kFfnUp]);
      if (spec_.gated_networks) {
        matrix(dense ? TensorRole::kFfnGate : TensorRole::kSharedGate, ffn.shared_width,
               spec_.width);
      }
      matrix(dense ? TensorRole::kFfnUp : TensorRole::kSharedUp, ffn.shared_width, spec_.width);
      matrix(dense ? TensorRole::kFfnDown : TensorRole::kSharedDown, spec_.width, ffn.shared_width);
      if (!dense) optional_vector(TensorRole::kSharedRouter, spec_.width);
      if (ffn.narrow_width == 0) optional_vector(TensorRole::kSharedPostNorm, spec_.width);
    }
    experts_of(ffn);
  }

  // Norms of the experts' own would need a width, and parts with norms of their own are added
  // apart: they are refused as unused.
  void narrow_experts(const FfnSpec& ffn) {
    if (ffn.narrow_width > spec_.width || spec_.router.weight_before_ffn) {
      fail(ErrorCode::kUnsupported, TensorRole::kExpertNarrow,
           "is wider than the stream, or of a model whose router scales what experts read");
    }
    matrix(TensorRole::kExpertNarrow, ffn.narrow_width, spec_.width);
    matrix(TensorRole::kExpertWiden, spec_.width, ffn.narrow_width);
  }

  // Of what the experts of a layer read and add.
  uint32_t stream_width(const FfnSpec& ffn) const noexcept {
    return ffn.narrow_width != 0 ? ffn.narrow_width : spec_.width;
  }

  void experts_of(const FfnSpec& ffn) const {
    const uint32_t width = stream_width(ffn);
    bool has[kNumExpertMatrices] = {};
    for (const ExpertTensor& tensor : tensors_.experts) {
      const bool down = tensor.matrix == ExpertMatrix::kDown;
      if (tensor.rows != (down ? width : ffn.width) ||
          tensor.columns != (down ? ffn.width : width)) {
        throw Error(ErrorCode::kFormat, where_ + std::string(name_of(tensor.matrix)) +
                                            "_exps has experts of " +
                                            std::to_string(tensor.columns) + " columns and " +
                                            std::to_string(tensor.rows) + " rows; expected " +
                                            std::to_string(down ? ffn.width : width) + " and " +
                                            std::to_string(down ? width : ffn.width));
      }
      const auto take = [&](ExpertMatrix matrix) {
        bool& taken = has[static_cast<size_t>(matrix)];
        if (taken) {
          throw Error(ErrorCode::kFormat, where_ + std::string(name_of(matrix)) +
                                              "_exps is there twice, alone and with another");
        }
        taken = true;
      };
      take(tensor.matrix);
      if (tensor.fused_gate_up) take(ExpertMatrix::kUp);
    }
    has[static_cast<size_t>(ExpertMatrix::kGate)] ^= !spec_.gated_networks;
    for (const bool present : has) {
      if (!present) {
        throw Error(ErrorCode::kFormat, where_ + "its experts lack a matrix, or have one too many");
      }
    }
  }

  void refuse_unused() const {
    for (size_t role = 0; role < kNumTensorRoles; ++role) {
      if (tensors_.dense[role] && !used_[role]) {
        fail(ErrorCode::kUnsupported, static_cast<TensorRole>(role),
             "is present, but " + spec_.architecture + " models are computed without it here");
      }
    }
  }

  const ModelSpec& spec_;
  const LayerTensors& tensors_;
  bool is_first_;  // of its stack
  std::string where_;
  bool used_[kNumTensorRoles] = {};
};

}  // namespace

void validate_spec(const ModelSpec& spec, const std::string& source) {
  require(spec.width >= 1, source, "embedding_length is 0");
  require(spec.norm_epsilon >= 0 && std::isfinite(spec.norm_epsilon), source,
          "attention.layer_norm_rms_epsilon is not a positive number");
  validate_router(spec.router, source);
  for (uint32_t layer = 0; layer < spec.num_layers; ++layer) {
    const std::string where = source + ": layer " + std::to_string(layer);
    validate_attention(spec.layers[layer].attention, where);
    validate_buckets(spec.layers[layer].attention, where);
    const LayerSpec& one = spec.layers[layer];
    require(one.ffn.kind == FfnKind::kNone || one.ffn.width >= 1, where,
            "feed_forward_length is 0");
    require(one.ffn.kind != FfnKind::kNone || one.attention.kind != AttentionKind::kNone, where,
            "it has neither attention nor a feed-forward network");
  }
}

void validate_tensors(const ModelSpec& spec, const ModelTensors& tensors,
                      const std::string& source) {
  const auto check_model = [&](TensorRole role, uint64_t rows, uint64_t columns) {
    const BoundTensor& bound = tensors[role];
    if (!bound) return;
    if (bound.info->columns() != columns || bound.info->rows() != rows) {
      throw Error(ErrorCode::kFormat, source + ": " + std::string(role_name(role)) +
                                          " does not have " + std::to_string(columns) +
                                          " columns and " + std::to_string(rows) + " rows");
    }
  };
  require(static_cast<bool>(tensors[TensorRole::kOutputNorm]), source,
          "output_norm.weight is missing; the file is incomplete");
  require(static_cast<bool>(tensors[TensorRole::kEncoderNorm]) == spec.has_encoder(), source,
          spec.has_encoder() ? "enc.output_norm.weight is missing; the file is incomplete"
                             : "enc.output_norm.weight belongs to an encoder, and there is none");
  check_model(TensorRole::kEncoderNorm, 1, spec.width);
  check_model(TensorRole::kTokenEmbedding, spec.vocab_size, spec.width);
  check_model(TensorRole::kOutput, spec.vocab_size, spec.width);
  check_model(TensorRole::kOutputNorm, 1, spec.width);
  check_model(TensorRole::kOutputNormBias, 1, spec.width);
  check_model(TensorRole::kOutputBias, 1, spec.vocab_size);
  for (uint32_t layer = 0; layer < spec.num_layers; ++layer) {
    const RopeSpec& rope = spec.layers[layer].attention.rope;
    if (rope.pairs != RopePairs::kNone && rope.divides_by_factors) {
      check_model(TensorRole::kRopeFactors, 1, rope.dimensions / 2);
      check_model(TensorRole::kRopeFactorsLong, 1, rope.dimensions / 2);
    }
    LayerCheck(spec, tensors, layer, source).run(spec.layers[layer]);
  }
}

}  // namespace edgemoe
