#include "bitwidth/pack_source.h"

#include <algorithm>

#include "base/error.h"
#include "model/spec_reader.h"
#include "weights/packed_container.h"
#include "weights/tensor_names.h"

namespace edgemoe {
namespace {

// What a plan may quantise: large matrices. Norms, biases, routers and sinks stay as they are.
bool is_weight_matrix(TensorRole role) noexcept {
  using enum TensorRole;
  switch (role) {
    case kTokenEmbedding:
    case kOutput:
    case kQuery:
    case kKey:
    case kValue:
    case kQkv:
    case kAttentionOutput:
    case kQueryDown:
    case kQueryUp:
    case kLatentDown:
    case kLatentUp:
    case kKeyAbsorb:
    case kValueUp:
    case kFfnGate:
    case kFfnUp:
    case kFfnDown:
    case kSharedGate:
    case kSharedUp:
    case kSharedDown:
      return true;
    default:
      return false;
  }
}

}  // namespace

PackSource::PackSource(const std::string& path) : gguf_(GgufFile::open(path)) {
  const ModelCounts counts = read_counts(gguf_);
  const Metadata& metadata = gguf_.metadata();
  if (counts.num_encoder_layers != 0) {
    throw Error(ErrorCode::kUnsupported,
                path +
                    ": models with an encoder cannot be packed yet; convert the checkpoint with "
                    "edgemoe convert --type instead");
  }
  architecture_ = metadata.get_string("general.architecture");
  name_ = metadata.get_string_or("general.name", "");
  num_layers_ = counts.num_layers;
  num_experts_ = counts.num_experts;
  is_packed_ = read_packed_container(gguf_, num_layers_, num_experts_).has_value();
  experts_.resize(size_t{num_layers_} * num_experts_);
  for (const TensorInfo& tensor : gguf_.tensors()) sort_tensor(tensor);
  check_complete();
  gguf_.drop_vocabulary();
}

bool PackSource::is_moe(uint32_t layer) const noexcept {
  if (num_experts_ == 0) return false;
  const auto& first = experts_[index(layer, 0)];
  return std::any_of(first.begin(), first.end(),
                     [](const ExpertSource& matrix) { return matrix.tensor != nullptr; });
}

void PackSource::sort_tensor(const TensorInfo& tensor) {
  const std::optional<TensorMeaning> meaning = meaning_of(tensor.name);
  // Experts of blocks that take no part in generation are copied like any other tensor.
  const bool is_expert = meaning && meaning->expert_matrix && meaning->layer < num_layers_;
  if (!is_expert) return add_dense(tensor);
  if (meaning->is_low_copy) return;  // the output gets its own, from the experts
  if (meaning->is_scale) {
    if (!meaning->fused_gate_up) return add_dense(tensor);
    for (const ExpertMatrix half : {ExpertMatrix::kGate, ExpertMatrix::kUp}) {
      dense_.push_back({&tensor, half_of_fused_name(tensor.name, half), false});
    }
    return;
  }
  if (num_experts_ == 0) {
    throw Error(ErrorCode::kFormat, gguf_.paths()[tensor.shard] + ": tensor '" + tensor.name +
                                        "' holds experts, but expert_count is 0");
  }
  if (meaning->expert) {
    add_expert(tensor, meaning->layer, *meaning->expert, *meaning->expert_matrix);
  } else {
    add_experts(tensor, meaning->layer, *meaning->expert_matrix, meaning->fused_gate_up);
  }
}

void PackSource::add_dense(const TensorInfo& tensor) {
  const std::optional<TensorMeaning> meaning = meaning_of(tensor.name);
  const bool is_matrix = meaning && meaning->role && !meaning->is_scale &&
                         tensor.num_dimensions > 1 && is_weight_matrix(*meaning->role);
  dense_.push_back({&tensor, tensor.name, is_matrix});
}

void PackSource::add_experts(const TensorInfo& tensor, uint32_t layer, ExpertMatrix matrix,
                             bool fused) {
  const uint64_t parts = fused ? 2 : 1;
  if (tensor.shape[2] != num_experts_ || tensor.shape[3] != 1 || tensor.shape[1] % parts != 0) {
    throw Error(ErrorCode::kFormat, gguf_.paths()[tensor.shard] + ": tensor '" + tensor.name +
                                        "' does not hold the matrices of " +
                                        std::to_string(num_experts_) + " experts");
  }
  const uint64_t rows = tensor.shape[1] / parts;
  const uint64_t bytes = rows * row_bytes(tensor.type, tensor.columns());
  uint64_t offset = tensor.offset;
  for (uint32_t expert = 0; expert < num_experts_; ++expert) {
    place(index(layer, expert), matrix, {&tensor, offset, rows});
    offset += bytes;
    if (!fused) continue;
    place(index(layer, expert), ExpertMatrix::kUp, {&tensor, offset, rows});
    offset += bytes;
  }
}

void PackSource::add_expert(const TensorInfo& tensor, uint32_t layer, uint32_t expert,
                            ExpertMatrix matrix) {
  if (expert >= num_experts_ || tensor.shape[2] != 1 || tensor.shape[3] != 1) {
    throw Error(ErrorCode::kFormat, gguf_.paths()[tensor.shard] + ": tensor '" + tensor.name +
                                        "' is not a matrix of one of " +
                                        std::to_string(num_experts_) + " experts");
  }
  place(index(layer, expert), matrix, {&tensor, tensor.offset, tensor.rows()});
}

void PackSource::place(size_t index, ExpertMatrix matrix, const ExpertSource& source) {
  ExpertSource& place = experts_[index][static_cast<size_t>(matrix)];
  if (place.tensor != nullptr) {
    throw Error(ErrorCode::kFormat, gguf_.paths()[source.tensor->shard] + ": tensor '" +
                                        source.tensor->name + "' repeats what '" +
                                        place.tensor->name + "' holds");
  }
  place = source;
}

// All experts of a layer have the matrices of the first, of the same shape.
void PackSource::check_complete() const {
  for (size_t i = 0; i < experts_.size(); ++i) {
    const auto& first = experts_[i / num_experts_ * num_experts_];
    for (size_t matrix = 0; matrix < kNumExpertMatrices; ++matrix) {
      const ExpertSource& one = experts_[i][matrix];
      const bool alike = (one.tensor == nullptr) == (first[matrix].tensor == nullptr);
      if (alike && (one.tensor == nullptr ||
                    (one.rows == first[matrix].rows && one.columns() == first[matrix].columns()))) {
        continue;
      }
      throw Error(ErrorCode::kFormat, gguf_.paths()[0] + ": blk." +
                                          std::to_string(i / num_experts_) +
                                          " lacks some of its experts, or they differ in shape");
    }
  }
}

}  // namespace edgemoe
