#include "model/kv_cache.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/units.h"
#include "model/recurrent_state.h"

namespace edgemoe {
namespace {

constexpr uint64_t kLayerAlignment = 64;

void check_size(uint32_t size) {
  if (size % 32 == 0) return;
  throw Error(ErrorCode::kArgument,
              "a q8_0 KV cache needs head sizes that are multiples of 32; "
              "this model has " +
                  std::to_string(size) + "; use f16");
}

}  // namespace

kernels::KvType kv_type_from_name(std::string_view name) {
  if (name == "f16") return kernels::KvType::kF16;
  if (name == "q8_0") return kernels::KvType::kQ8_0;
  if (name == "f32") return kernels::KvType::kF32;
  throw Error(ErrorCode::kArgument,
              "unknown kv_type '" + std::string(name) + "'; known: f16, q8_0, f32");
}

KvCache::Layer KvCache::place_rows(const AttentionSpec& attention, uint32_t context,
                                   kernels::KvType type, uint64_t& end) {
  if (type == kernels::KvType::kQ8_0) {
    check_size(attention.key_size);
    check_size(attention.value_size);
  }
  Layer layer;
  layer.key_row = kv_row_bytes(type, attention.key_size);
  layer.key_stride = layer.key_row * attention.num_kv_heads;
  layer.keys = end;
  end = align_up(end + uint64_t{context} * layer.key_stride, kLayerAlignment);
  if (attention.kind == AttentionKind::kLatent) {
    layer.values = layer.keys;
    layer.value_row = layer.key_row;
    layer.value_stride = layer.key_stride;
  } else {
    layer.value_row = kv_row_bytes(type, attention.value_size);
    layer.value_stride = layer.value_row * attention.num_kv_heads;
    layer.values = end;
    end = align_up(end + uint64_t{context} * layer.value_stride, kLayerAlignment);
  }
  return layer;
}

uint64_t KvCache::place(const ModelSpec& spec, uint32_t context, kernels::KvType type,
                        std::vector<Layer>& layers) {
  uint64_t end = 0;
  if (spec.has_encoder()) {
    end = align_up(uint64_t{context} * spec.width * sizeof(float), kLayerAlignment);
    const uint64_t begin = end;
    for (uint32_t layer = 0; layer < spec.num_encoder_layers; ++layer) {
      uint64_t own_end = begin;
      layers.push_back(place_rows(spec.layers[layer].attention, context, type, own_end));
      end = std::max(end, own_end);
    }
  }
  for (uint32_t index = spec.num_encoder_layers; index < spec.num_layers; ++index) {
    const AttentionSpec& attention = spec.layers[index].attention;
    if (is_recurrent(attention.kind) || attention.kind == AttentionKind::kNone) {
      Layer layer;
      layer.keys = end;
      end = align_up(end + state_floats(attention, spec.width) * sizeof(float), kLayerAlignment);
      layers.push_back(layer);
      continue;
    }
    layers.push_back(place_rows(attention, context, type, end));
  }
  for (uint32_t index = spec.num_encoder_layers; spec.has_encoder() && index < spec.num_layers;
       ++index) {
    layers.push_back(place_rows(spec.layers[index].cross, context, type, end));
  }
  return end;
}

uint64_t KvCache::bytes(const ModelSpec& spec, uint32_t context, kernels::KvType type) {
  std::vector<Layer> layers;
  return place(spec, context, type, layers);
}

KvCache::KvCache(const ModelSpec& spec, uint32_t context, kernels::KvType type)
    : type_(type),
      context_(context),
      num_layers_(spec.num_layers),
      num_encoder_layers_(spec.num_encoder_layers) {
  buffer_ = AlignedBuffer(place(spec, context, type, layers_));
  data_ = buffer_.data();
}

KvCache KvCache::part(uint32_t first, uint32_t context) const {
  EM_CHECK(first <= context_ && context <= context_ - first);
  KvCache part;
  part.type_ = type_;
  part.context_ = context;
  part.num_layers_ = num_layers_;
  part.layers_ = layers_;
  part.data_ = data_;
  for (Layer& layer : part.layers_) {
    layer.keys += first * layer.key_stride;
    layer.values += first * layer.value_stride;
  }
  return part;
}

std::byte* KvCache::keys(uint32_t layer, uint32_t kv_head) noexcept {
  return data_ + layers_[layer].keys + kv_head * layers_[layer].key_row;
}

std::byte* KvCache::values(uint32_t layer, uint32_t kv_head) noexcept {
  return data_ + layers_[layer].values + kv_head * layers_[layer].value_row;
}

}  // namespace edgemoe
