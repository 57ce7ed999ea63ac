#include "model/model_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/units.h"
#include "model/recurrent_state.h"
#include "model/regrouper.h"
#include "quant/unpack.h"

namespace edgemoe {
namespace {

constexpr uint64_t kArenaAlignment = 64;
constexpr size_t kPieceBytes = 4 * kMiB;

enum class LoadKind : uint8_t {
  kMatrix,      // bytes as they are, then regrouped, `parts` matrices of equal shape
  kVector,      // float32
  kTransposed,  // likewise, columns become rows
  kLatentUp,    // attn_kv_b of old files, split into key_absorb and value_up
  kDeltaIn,     // ssm_in of old files, split into qkv and attention_gate
};

// One tensor on its way into the arena.
struct Load {
  LoadKind kind;
  BoundTensor tensor;
  uint64_t offset = 0;  // in the arena
  uint64_t bytes = 0;
  uint32_t parts = 1;
  float factor = 1.0f;                       // kVector: multiplies the values
  const AttentionSpec* attention = nullptr;  // kLatentUp, kDeltaIn
  // Where the result is announced; exactly one is set (kLatentUp and kDeltaIn: `layer`).
  MatrixView* matrix = nullptr;
  std::vector<MatrixView>* heads = nullptr;
  const float** vector = nullptr;
  LayerWeights* layer = nullptr;
};

uint64_t latent_up_bytes(const AttentionSpec& attention, QuantType type) {
  const uint64_t absorb = uint64_t{attention.num_heads} * attention.latent_size *
                          attention.content_size * sizeof(float);
  return align_up(absorb, kArenaAlignment) + uint64_t{attention.num_heads} *
                                                 attention.head_value_size *
                                                 row_bytes(type, attention.latent_size);
}

}  // namespace

// Lists what is to be loaded and gives every piece its place; run once to know the size and once
// to load, so the two cannot disagree.
class WeightPlacer {
 public:
  WeightPlacer(const ModelSpec& spec, const ModelTensors& tensors, ModelWeights& weights)
      : tensors_(tensors) {
    weights.layers_.resize(spec.num_layers);
    using enum TensorRole;
    const BoundTensor& output = tensors[kOutput];
    matrix(output ? output : tensors[kTokenEmbedding], weights.output_);
    vector(tensors[kEncoderNorm], weights.encoder_norm_);
    vector(tensors[kOutputNorm], weights.output_norm_);
    vector(tensors[kOutputNormBias], weights.output_norm_bias_);
    vector(tensors[kOutputBias], weights.output_bias_);
    vector(rope_factors(), weights.rope_factors_);
    vector(tensors[kRopeFactorsLong], weights.rope_factors_long_);
    for (uint32_t i = 0; i < spec.num_layers; ++i) {
      attention(spec.layers[i].attention, tensors.layers[i], weights.layers_[i]);
      ffn(spec, i, tensors.layers[i], weights.layers_[i]);
    }
  }

  uint64_t bytes() const noexcept { return end_; }
  const std::vector<Load>& loads() const noexcept { return loads_; }

 private:
  // Some converters repeat the factors in each layer; they are the same everywhere.
  BoundTensor rope_factors() const {
    const BoundTensor& factors = tensors_[TensorRole::kRopeFactors];
    return factors || tensors_.layers.empty() ? factors
                                              : tensors_.layers[0][TensorRole::kRopeFactors];
  }

  Load& add(const BoundTensor& tensor, LoadKind kind, uint64_t bytes) {
    Load load{};
    load.kind = kind;
    load.tensor = tensor;
    load.offset = end_;
    load.bytes = bytes;
    end_ = align_up(end_ + bytes, kArenaAlignment);
    loads_.push_back(load);
    return loads_.back();
  }

  void matrix(const BoundTensor& tensor, MatrixView& view) {
    if (tensor) add(tensor, LoadKind::kMatrix, tensor.info->bytes).matrix = &view;
  }
  void heads(const BoundTensor& tensor, uint32_t parts, std::vector<MatrixView>& views) {
    if (!tensor) return;
    Load& load = add(tensor, LoadKind::kMatrix, tensor.info->bytes);
    load.parts = parts;
    load.heads = &views;
  }
  void vector(const BoundTensor& tensor, const float*& place, float factor = 1.0f) {
    if (!tensor) return;
    const uint64_t count = tensor.info->rows() * tensor.info->columns();
    Load& load = add(tensor, LoadKind::kVector, count * sizeof(float));
    load.vector = &place;
    load.factor = factor;
  }

  void attention(const AttentionSpec& spec, const LayerTensors& from, LayerWeights& to) {
    using enum TensorRole;
    if (spec.kind != AttentionKind::kNone) vector(from[kAttentionNorm], to.attention_norm);
    vector(from[kAttentionNormBias], to.attention_norm_bias);
    matrix(from[kQkv], to.qkv);
    vector(from[kQkvBias], to.qkv_bias);
    matrix(from[kQuery], to.query);
    vector(from[kQueryBias], to.query_bias);
    matrix(from[kKey], to.key);
    vector(from[kKeyBias], to.key_bias);
    matrix(from[kValue], to.value);
    vector(from[kValueBias], to.value_bias);
    vector(from[kQueryNorm], to.query_norm);
    vector(from[kKeyNorm], to.key_norm);
    vector(from[kSinks], to.sinks);
    vector(from[kPositionBias], to.position_bias);
    matrix(from[kQueryDown], to.query_down);
    vector(from[kQueryDownNorm], to.query_down_norm);
    matrix(from[kQueryUp], to.query_up);
    matrix(from[kLatentDown], to.latent_down);
    vector(from[kLatentNorm], to.latent_norm);
    heads(from[kKeyAbsorb], spec.num_heads, to.key_absorb);
    heads(from[kValueUp], spec.num_heads, to.value_up);
    if (const BoundTensor& latent_up = from[kLatentUp]) {
      Load& load = add(latent_up, LoadKind::kLatentUp, latent_up_bytes(spec, latent_up.info->type));
      load.attention = &spec;
      load.layer = &to;
    }
    matrix(from[kAttentionOutput], to.attention_output);
    vector(from[kAttentionOutputBias], to.attention_output_bias);
    recurrent(spec, from, to);
    cross_attention(from, to);
  }

  void cross_attention(const LayerTensors& from, LayerWeights& to) {
    using enum TensorRole;
    vector(from[kCrossNorm], to.cross_norm);
    matrix(from[kCrossQuery], to.cross_query);
    matrix(from[kCrossKey], to.cross_key);
    matrix(from[kCrossValue], to.cross_value);
    matrix(from[kCrossOutput], to.cross_output);
  }

  void delta_in(const AttentionSpec& spec, const BoundTensor& tensor, LayerWeights& to) {
    // The second matrix is aligned too.
    Load& load = add(tensor, LoadKind::kDeltaIn, tensor.info->bytes + kArenaAlignment);
    load.attention = &spec;
    load.layer = &to;
  }

  void recurrent(const AttentionSpec& spec, const LayerTensors& from, LayerWeights& to) {
    using enum TensorRole;
    if (spec.kind == AttentionKind::kDeltaNet && from[kRecurrentIn]) {
      delta_in(spec, from[kRecurrentIn], to);
    } else {
      matrix(from[kRecurrentIn], to.recurrent_in);
    }
    matrix(from[kAttentionGate], to.attention_gate);
    matrix(from[kRate], to.rate);
    matrix(from[kDecay], to.decay);
    matrix(from[kRateDecay], to.rate_decay);
    vector(from[kConvolution], to.convolution);
    if (from[kConvolution]) loads_.back().kind = LoadKind::kTransposed;
    vector(from[kConvolutionBias], to.convolution_bias);
    vector(from[kDecayBias], to.decay_bias);
    vector(from[kDecayCoefficient], to.decay_coefficient);
    if (from[kDecayCoefficient]) loads_.back().kind = LoadKind::kTransposed;
    matrix(from[kRateKeyQuery], to.rate_key_query);
    matrix(from[kRateUp], to.rate_up);
    vector(from[kRateNorm], to.rate_norm);
    vector(from[kStateKeyNorm], to.state_key_norm);
    vector(from[kStateQueryNorm], to.state_query_norm);
    vector(from[kStateNorm], to.state_norm);
    vector(from[kSkip], to.skip);
    matrix(from[kRecurrentOut], to.attention_output);
  }

  void ffn(const ModelSpec& spec, uint32_t index, const LayerTensors& from, LayerWeights& to) {
    using enum TensorRole;
    vector(from[kPostAttentionNorm], from[kFfnNorm] ? to.post_attention_norm : to.ffn_norm);
    vector(from[kFfnNorm], to.ffn_norm);
    // A layer of one network has one norm.
    if (spec.layers[index].attention.kind == AttentionKind::kNone) {
      vector(from[kAttentionNorm], to.ffn_norm);
    }
    vector(from[kFfnNormBias], to.ffn_norm_bias);
    vector(from[kFfnPostNorm], to.ffn_post_norm);
    vector(from[kSharedPostNorm], to.shared_post_norm);
    vector(from[kExpertNorm], to.expert_norm);
    vector(from[kExpertPostNorm], to.expert_post_norm);
    matrix(from[kExpertNarrow], to.expert_narrow);
    matrix(from[kExpertWiden], to.expert_widen);
    vector(from[kLayerScale], to.layer_scale);
    // Beside experts a dense network is a shared expert.
    const bool shared = static_cast<bool>(from[kRouter]);
    matrix(from[kFfnGate], shared ? to.shared_gate : to.ffn_gate);
    matrix(from[kFfnUp], shared ? to.shared_up : to.ffn_up);
    matrix(from[kFfnDown], shared ? to.shared_down : to.ffn_down);
    matrix(from[kRouter], to.router);
    vector(from[kRouterNorm], to.router_norm, 1.0f / std::sqrt(static_cast<float>(spec.width)));
    vector(from[kRouterBias], to.router_bias);
    vector(from[kSelectionBias], to.selection_bias);
    vector(from[kExpertGateBias], to.expert_gate_bias);
    vector(from[kExpertUpBias], to.expert_up_bias);
    vector(from[kExpertDownBias], to.expert_down_bias);
    matrix(from[kSharedGate], to.shared_gate);
    matrix(from[kSharedUp], to.shared_up);
    matrix(from[kSharedDown], to.shared_down);
    matrix(from[kSharedRouter], to.shared_router);
  }

  const ModelTensors& tensors_;
  std::vector<Load> loads_;
  uint64_t end_ = 0;
};

namespace {

// Carries out the loads of a placer.
class WeightLoader {
 public:
  WeightLoader(std::span<const File> files, ThreadPool& pool, size_t max_row_bytes,
               std::byte* arena, const ShouldStop& should_stop)
      : files_(files), regrouper_(pool, max_row_bytes), arena_(arena), should_stop_(should_stop) {}

  void run(const Load& load) {
    switch (load.kind) {
      case LoadKind::kMatrix:
        return load_matrix(load);
      case LoadKind::kVector:
        return load_vector(load);
      case LoadKind::kTransposed:
        return load_transposed(load);
      case LoadKind::kLatentUp:
        return load_latent_up(load);
      case LoadKind::kDeltaIn:
        return load_delta_in(load);
    }
  }

 private:
  // In pieces: on a slow device one tensor takes longer than who stops us waits.
  void read(const File& file, uint64_t offset, std::span<std::byte> out) {
    while (!out.empty()) {
      throw_if_stopped(should_stop_);
      const size_t count = std::min(out.size(), kPieceBytes);
      file.read_exact(offset, out.first(count));
      out = out.subspan(count);
      offset += count;
    }
  }
  void read(const TensorInfo& tensor, std::byte* out) {
    read(files_[tensor.shard], tensor.offset, {out, tensor.bytes});
  }

  void read_floats(const TensorInfo& tensor, float* out) {
    const uint64_t count = tensor.rows() * tensor.columns();
    if (tensor.type == QuantType::kF32) return read(tensor, reinterpret_cast<std::byte*>(out));
    std::vector<std::byte> raw(tensor.bytes);
    read(tensor, raw.data());
    dequantize(tensor.type, raw.data(), count, out);
  }

  void load_vector(const Load& load) {
    auto* values = reinterpret_cast<float*>(arena_ + load.offset);
    read_floats(*load.tensor.info, values);
    for (uint64_t i = 0; load.factor != 1.0f && i < load.bytes / sizeof(float); ++i) {
      values[i] *= load.factor;
    }
    *load.vector = values;
  }

  void load_transposed(const Load& load) {
    const uint64_t rows = load.tensor.info->rows();
    const uint64_t columns = load.tensor.info->columns();
    auto* values = reinterpret_cast<float*>(arena_ + load.offset);
    std::vector<float> from(rows * columns);
    read_floats(*load.tensor.info, from.data());
    for (uint64_t i = 0; i < rows * columns; ++i)
      values[i % columns * rows + i / columns] = from[i];
    *load.vector = values;
  }

  float scale_of(const BoundTensor& tensor) {
    float scale = 1.0f;
    if (tensor.scale != nullptr) read_floats(*tensor.scale, &scale);
    return scale;
  }

  void load_matrix(const Load& load) {
    const TensorInfo& tensor = *load.tensor.info;
    std::byte* data = arena_ + load.offset;
    read(tensor, data);
    MatrixView view;
    view.type = tensor.type;
    view.rows = tensor.rows() / load.parts;
    view.columns = tensor.columns();
    view.scale = scale_of(load.tensor);
    for (uint32_t part = 0; part < load.parts; ++part) {
      std::byte* place = data + part * (tensor.bytes / load.parts);
      regrouper_.regroup_matrix(view.type, place, view.rows, view.columns);
      view.data = place;
      if (load.heads != nullptr) load.heads->push_back(view);
    }
    if (load.matrix != nullptr) *load.matrix = view;
  }

  // Old files store, head by head, content_size rows that make keys and head_value_size rows that
  // make values. The absorbed form needs the first part transposed, which blocks along the
  // columns do not allow: it is kept as float32.
  void load_latent_up(const Load& load) {
    const AttentionSpec& spec = *load.attention;
    const TensorInfo& tensor = *load.tensor.info;
    const float scale = scale_of(load.tensor);
    const uint64_t row_size = row_bytes(tensor.type, spec.latent_size);
    const uint64_t absorb_floats = uint64_t{spec.latent_size} * spec.content_size;
    std::vector<std::byte> raw(tensor.bytes);
    read(tensor, raw.data());
    auto* absorb = reinterpret_cast<float*>(arena_ + load.offset);
    std::byte* values = arena_ + load.offset +
                        align_up(spec.num_heads * absorb_floats * sizeof(float), kArenaAlignment);
    std::vector<float> row(spec.latent_size);
    const std::byte* from = raw.data();
    for (uint32_t head = 0; head < spec.num_heads; ++head) {
      for (uint32_t column = 0; column < spec.content_size; ++column, from += row_size) {
        dequantize(tensor.type, from, spec.latent_size, row.data());
        for (uint32_t i = 0; i < spec.latent_size; ++i) {
          absorb[i * spec.content_size + column] = row[i];
        }
      }
      load.layer->key_absorb.push_back({reinterpret_cast<const std::byte*>(absorb), QuantType::kF32,
                                        spec.latent_size, spec.content_size, scale});
      absorb += absorb_floats;
      const uint64_t value_bytes = spec.head_value_size * row_size;
      std::memcpy(values, from, value_bytes);
      regrouper_.regroup_matrix(tensor.type, values, spec.head_value_size, spec.latent_size);
      load.layer->value_up.push_back(
          {values, tensor.type, spec.head_value_size, spec.latent_size, scale});
      values += value_bytes;
      from += value_bytes;
    }
  }

  // Old files store, key head by key head, its query, its key, and the values and gates of its
  // value heads.
  void load_delta_in(const Load& load) {
    const AttentionSpec& spec = *load.attention;
    const TensorInfo& tensor = *load.tensor.info;
    const uint64_t width = tensor.columns();
    const uint64_t row_size = row_bytes(tensor.type, width);
    const uint64_t channels = convolution_channels(spec, width);
    const uint64_t values = uint64_t{spec.num_heads} * spec.value_size;
    std::byte* mixed = arena_ + load.offset;
    std::byte* gates = mixed + align_up(channels * row_size, kArenaAlignment);
    const uint64_t key_bytes = spec.key_size * row_size;
    const uint64_t value_bytes = values / spec.num_kv_heads * row_size;
    std::byte* keys = mixed + spec.num_kv_heads * key_bytes;
    uint64_t from = tensor.offset;
    const auto take = [&](std::byte* to, uint64_t bytes) {
      read(files_[tensor.shard], from, {to, bytes});
      from += bytes;
    };
    for (uint32_t head = 0; head < spec.num_kv_heads; ++head) {
      take(mixed + head * key_bytes, key_bytes);
      take(keys + head * key_bytes, key_bytes);
      take(keys + spec.num_kv_heads * key_bytes + head * value_bytes, value_bytes);
      take(gates + head * value_bytes, value_bytes);
    }
    regrouper_.regroup_matrix(tensor.type, mixed, channels, width);
    regrouper_.regroup_matrix(tensor.type, gates, values, width);
    const float scale = scale_of(load.tensor);
    load.layer->qkv = {mixed, tensor.type, channels, width, scale};
    load.layer->attention_gate = {gates, tensor.type, values, width, scale};
  }

  std::span<const File> files_;
  Regrouper regrouper_;
  std::byte* arena_;
  const ShouldStop& should_stop_;
};

}  // namespace

uint64_t ModelWeights::bytes(const ModelSpec& spec, const ModelTensors& tensors) {
  ModelWeights unused;
  return WeightPlacer(spec, tensors, unused).bytes();
}

ModelWeights::ModelWeights(const ModelSpec& spec, const ModelTensors& tensors,
                           std::span<const File> files, ThreadPool& pool,
                           const ShouldStop& should_stop) {
  const WeightPlacer placer(spec, tensors, *this);
  arena_ = AlignedBuffer(placer.bytes());
  size_t max_row_bytes = 0;
  for (const Load& load : placer.loads()) {
    const TensorInfo& tensor = *load.tensor.info;
    max_row_bytes = std::max<size_t>(max_row_bytes, row_bytes(tensor.type, tensor.columns()));
  }
  WeightLoader loader(files, pool, max_row_bytes, arena_.data(), should_stop);
  for (const Load& load : placer.loads()) loader.run(load);
}

}  // namespace edgemoe
