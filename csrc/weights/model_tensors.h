// Tensors by what they do. The only place where GGUF tensor names are known is tensor_names.cpp;
// everything else asks for a role.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "weights/expert_layout.h"

namespace edgemoe {

// Roles of tensors that stay in memory; one tensor per layer, or one per model.
enum class TensorRole : uint8_t {
  // of the model
  kTokenEmbedding,
  kEncoderNorm,  // kOutputNorm is then the decoder's
  kOutputNorm,
  kOutputNormBias,
  kOutput,
  kOutputBias,
  kRopeFactors,
  kRopeFactorsLong,  // for contexts beyond the original one
  // of a layer: attention
  kAttentionNorm,
  kAttentionNormBias,
  kQuery,
  kQueryBias,
  kKey,
  kKeyBias,
  kValue,
  kValueBias,
  kQkv,
  kQkvBias,
  kAttentionOutput,
  kAttentionOutputBias,
  kQueryNorm,
  kKeyNorm,
  kSinks,
  kPositionBias,       // by bucket of distances; in the first layer of a stack, for all of it
  kPostAttentionNorm,  // of the branch; where there is no kFfnNorm, that
  kQueryDown,
  kQueryDownNorm,
  kQueryUp,
  kLatentDown,
  kLatentNorm,
  kLatentUp,
  kKeyAbsorb,
  kValueUp,
  kAttentionGate,
  kConvolution,
  kConvolutionBias,
  kRecurrentIn,
  kRecurrentOut,
  kRate,
  kDecay,
  kRateDecay,  // both, key head by key head
  kDecayBias,
  kDecayCoefficient,
  kStateNorm,
  kSkip,
  kRateKeyQuery,
  kRateUp,
  kRateNorm,
  kStateKeyNorm,
  kStateQueryNorm,
  // of a layer: attention to what the encoder read
  kCrossNorm,
  kCrossQuery,
  kCrossKey,
  kCrossValue,
  kCrossOutput,
  // of a layer: feed-forward
  kFfnNorm,
  kFfnNormBias,
  kFfnPostNorm,     // of the branch
  kSharedPostNorm,  // of what the shared expert adds to it
  kExpertNorm,      // of what the experts read, where that is not kFfnNorm
  kExpertPostNorm,  // of what they add
  kExpertNarrow,    // from the stream to the width of what experts read, where that is another
  kExpertWiden,     // back, of what they add
  kLayerScale,      // one value, multiplies the residual stream behind the layer
  kFfnGate,
  kFfnUp,
  kFfnDown,
  kRouter,
  kRouterBias,
  kRouterNorm,  // of what the router reads, times the root of the width
  kSelectionBias,
  kExpertGateBias,
  kExpertUpBias,
  kExpertDownBias,
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kSharedRouter,
  kCount,
};
inline constexpr size_t kNumTensorRoles = static_cast<size_t>(TensorRole::kCount);

// A tensor and the factor that its file gives beside it (`.scale`, one value; 1 when absent).
struct BoundTensor {
  const TensorInfo* info = nullptr;   // null: absent
  const TensorInfo* scale = nullptr;  // F32 [1]
  explicit operator bool() const noexcept { return info != nullptr; }
};

struct LayerTensors {
  std::array<BoundTensor, kNumTensorRoles> dense;
  // Expert tensors of the layer; scales (per expert) are filled when the model is loaded.
  std::vector<ExpertTensor> experts;
  std::vector<const TensorInfo*> expert_scales;  // parallel to experts; null: none
  // Matrices of the experts' low copies, of the same shapes; an offset of 0: the expert has none.
  std::vector<ExpertTensor> low_copies;
  const BoundTensor& operator[](TensorRole role) const noexcept {
    return dense[static_cast<size_t>(role)];
  }
};

struct ModelTensors {
  std::array<BoundTensor, kNumTensorRoles> model;
  std::vector<LayerTensors> layers;
  bool experts_regrouped = false;  // in the file already (packed_container.h)
  const BoundTensor& operator[](TensorRole role) const noexcept {
    return model[static_cast<size_t>(role)];
  }
};

// What a file says of its layers before its tensors are looked at. With an encoder its layers come
// first, those of the decoder behind them.
struct ModelCounts {
  uint32_t num_layers = 0;  // that are computed
  uint32_t num_blocks = 0;  // in the file: NextN blocks included
  uint32_t num_experts = 0;
  uint32_t num_encoder_layers = 0;  // 0: there is no encoder
};

// Binds every tensor of the file to a role of its layer. Tensors of blocks >= num_layers (NextN)
// are skipped only when num_blocks > num_layers says so. Errors: kUnsupported naming a tensor that
// has no role; kFormat for a layer outside the model, experts that disagree in number or shape.
ModelTensors bind_tensors(const GgufFile& file, const ModelCounts& counts);

}  // namespace edgemoe
