#include "weights/model_tensors.h"

#include "base/error.h"
#include "weights/tensor_names.h"

namespace edgemoe {
namespace {

[[noreturn]] void fail(ErrorCode code, const GgufFile& file, const TensorInfo& tensor,
                       const std::string& what) {
  throw Error(code, file.paths()[tensor.shard] + ": tensor '" + tensor.name + "' " + what);
}

std::string shape_text(const TensorInfo& tensor) {
  std::string text = "[" + std::to_string(tensor.shape[0]);
  for (uint32_t i = 1; i < tensor.num_dimensions; ++i) {
    text += ", " + std::to_string(tensor.shape[i]);
  }
  return text + "]";
}

class Binder {
 public:
  Binder(const GgufFile& file, const ModelCounts& counts)
      : file_(file), counts_(counts), num_experts_(counts.num_experts) {
    tensors_.layers.resize(counts.num_layers);
  }

  // `layer` is the tensor's among those of the model, where it belongs to one.
  void bind(const TensorInfo& tensor, std::optional<uint32_t> layer) {
    std::optional<TensorMeaning> meaning = meaning_of(tensor.name);
    if (!meaning) {
      fail(ErrorCode::kUnsupported, file_, tensor,
           "is not known to this version of edgemoe; the model would be computed wrongly without "
           "it");
    }
    if (meaning->scope == TensorScope::kIgnored) return;
    if (layer) meaning->layer = *layer;
    if (meaning->role) return bind_dense(tensor, *meaning);
    if (meaning->is_scale) return bind_expert_scale(tensor, *meaning);
    LayerTensors& bound = tensors_.layers[meaning->layer];
    bind_expert(tensor, *meaning,
                meaning->is_low_copy ? low_copy_entry(bound, *meaning->expert_matrix)
                                     : expert_entry(bound, *meaning));
  }

  ModelTensors finish() {
    for (const LayerTensors& layer : tensors_.layers) {
      check_complete(layer);
      check_low_copies(layer);
    }
    return std::move(tensors_);
  }

 private:
  void bind_dense(const TensorInfo& tensor, const TensorMeaning& meaning) {
    auto& slots = meaning.scope == TensorScope::kLayer ? tensors_.layers[meaning.layer].dense
                                                       : tensors_.model;
    BoundTensor& bound = slots[static_cast<size_t>(*meaning.role)];
    const TensorInfo*& place = meaning.is_scale ? bound.scale : bound.info;
    if (place != nullptr) {
      fail(ErrorCode::kFormat, file_, tensor, "repeats '" + place->name + "'");
    }
    if (meaning.is_scale &&
        (tensor.type != QuantType::kF32 || tensor.rows() * tensor.columns() != 1)) {
      fail(ErrorCode::kUnsupported, file_, tensor, "is not one F32 value");
    }
    place = &tensor;
  }

  ExpertTensor& expert_entry(LayerTensors& layer, const TensorMeaning& meaning) {
    for (ExpertTensor& entry : layer.experts) {
      if (entry.matrix == *meaning.expert_matrix && entry.fused_gate_up == meaning.fused_gate_up) {
        return entry;
      }
    }
    ExpertTensor entry;
    entry.matrix = *meaning.expert_matrix;
    entry.fused_gate_up = meaning.fused_gate_up;
    layer.experts.push_back(entry);
    layer.expert_scales.push_back(nullptr);
    return layer.experts.back();
  }

  static ExpertTensor& low_copy_entry(LayerTensors& layer, ExpertMatrix matrix) {
    for (ExpertTensor& entry : layer.low_copies) {
      if (entry.matrix == matrix) return entry;
    }
    layer.low_copies.emplace_back().matrix = matrix;
    return layer.low_copies.back();
  }

  void bind_expert_scale(const TensorInfo& tensor, const TensorMeaning& meaning) {
    LayerTensors& layer = tensors_.layers[meaning.layer];
    const size_t index = static_cast<size_t>(&expert_entry(layer, meaning) - layer.experts.data());
    if (tensor.type != QuantType::kF32 || tensor.columns() * tensor.rows() != num_experts_) {
      fail(ErrorCode::kUnsupported, file_, tensor, "is not one F32 value per expert");
    }
    layer.expert_scales[index] = &tensor;
  }

  void bind_expert(const TensorInfo& tensor, const TensorMeaning& meaning, ExpertTensor& entry) {
    if (num_experts_ == 0) {
      fail(ErrorCode::kFormat, file_, tensor, "holds experts, but expert_count is 0");
    }
    const uint32_t parts = entry.fused_gate_up ? 2 : 1;
    const uint64_t experts = meaning.expert ? 1 : num_experts_;
    if (tensor.shape[1] % parts != 0 || tensor.shape[1] > UINT32_MAX ||
        tensor.shape[0] > UINT32_MAX || tensor.shape[2] != experts || tensor.shape[3] != 1) {
      fail(ErrorCode::kFormat, file_, tensor,
           "has shape " + shape_text(tensor) + "; expected [columns, rows, " +
               std::to_string(experts) + "]");
    }
    if (entry.offsets.empty()) {
      entry.columns = static_cast<uint32_t>(tensor.shape[0]);
      entry.rows = static_cast<uint32_t>(tensor.shape[1] / parts);
      entry.shards.assign(num_experts_, tensor.shard);
      entry.offsets.assign(num_experts_, 0);
      entry.types.assign(num_experts_, tensor.type);
    } else if (!meaning.expert || entry.columns != tensor.shape[0] ||
               entry.rows * parts != tensor.shape[1]) {
      fail(ErrorCode::kUnsupported, file_, tensor,
           "has another shape than the other experts of its layer");
    }
    place_experts(tensor, meaning, entry);
  }

  void place_experts(const TensorInfo& tensor, const TensorMeaning& meaning, ExpertTensor& entry) {
    if (!meaning.expert) {
      const uint64_t expert_bytes = tensor.bytes / num_experts_;
      for (uint32_t expert = 0; expert < num_experts_; ++expert) {
        entry.offsets[expert] = tensor.offset + expert * expert_bytes;
      }
      return;
    }
    if (*meaning.expert >= num_experts_ || entry.offsets[*meaning.expert] != 0) {
      fail(ErrorCode::kFormat, file_, tensor,
           "names an expert twice or beyond expert_count (" + std::to_string(num_experts_) + ")");
    }
    entry.offsets[*meaning.expert] = tensor.offset;
    entry.shards[*meaning.expert] = tensor.shard;
    entry.types[*meaning.expert] = tensor.type;
  }

  // No tensor starts at byte 0 of a file, so an offset of 0 is an expert that was never named.
  void check_complete(const LayerTensors& layer) {
    for (const ExpertTensor& entry : layer.experts) {
      bool complete = !entry.offsets.empty();
      for (const uint64_t offset : entry.offsets) complete = complete && offset != 0;
      if (!complete) {
        const auto index = static_cast<uint32_t>(&layer - tensors_.layers.data());
        throw Error(ErrorCode::kFormat, file_.paths()[0] + ": " +
                                            block_name(index, counts_.num_encoder_layers) +
                                            " lacks some of its experts; the file is incomplete");
      }
    }
  }

  // A low copy has the matrices of its expert, in the same shapes.
  void check_low_copies(const LayerTensors& layer) {
    for (uint32_t expert = 0; !layer.low_copies.empty() && expert < num_experts_; ++expert) {
      size_t found = 0;
      size_t fitting = 0;
      for (const ExpertTensor& low : layer.low_copies) {
        if (low.offsets[expert] == 0) continue;
        ++found;
        for (const ExpertTensor& full : layer.experts) {
          fitting += low.matrix == full.matrix && low.rows == full.rows &&
                     low.columns == full.columns && !full.fused_gate_up;
        }
      }
      if (found == 0 || (found == fitting && found == layer.experts.size())) continue;
      throw Error(ErrorCode::kFormat, file_.paths()[0] + ": blk." +
                                          std::to_string(&layer - tensors_.layers.data()) +
                                          ": the low copy of expert " + std::to_string(expert) +
                                          " does not have the matrices of its expert; the "
                                          "file is incomplete");
    }
  }

  const GgufFile& file_;
  const ModelCounts& counts_;
  uint32_t num_experts_;
  ModelTensors tensors_;
};

// The layer among those of the model.
uint32_t layer_of(const GgufFile& file, const TensorInfo& tensor, const BlockName& block,
                  const ModelCounts& counts) {
  const uint32_t encoder = counts.num_encoder_layers;
  if ((block.stack == LayerStack::kOnly) != (encoder == 0)) {
    fail(ErrorCode::kFormat, file, tensor,
         encoder == 0
             ? "belongs to an encoder or decoder, and models of this architecture have one "
               "stack of layers"
             : "belongs to neither the encoder nor the decoder");
  }
  const bool in_encoder = block.stack == LayerStack::kEncoder;
  const uint32_t count = in_encoder ? encoder : counts.num_blocks - encoder;
  if (block.number >= count) {
    fail(ErrorCode::kFormat, file, tensor,
         "belongs to no block: block_count is " + std::to_string(count));
  }
  return block.number + (in_encoder ? 0 : encoder);
}

}  // namespace

ModelTensors bind_tensors(const GgufFile& file, const ModelCounts& counts) {
  Binder binder(file, counts);
  for (const TensorInfo& tensor : file.tensors()) {
    const std::optional<BlockName> block = block_of(tensor.name);
    if (!block) {
      binder.bind(tensor, std::nullopt);
      continue;
    }
    const uint32_t layer = layer_of(file, tensor, *block, counts);
    if (layer >= counts.num_layers) continue;  // a NextN block: takes no part in generation
    binder.bind(tensor, layer);
  }
  return binder.finish();
}

}  // namespace edgemoe
