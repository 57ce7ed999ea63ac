// Keys and values of one sequence: per layer, position after position, head after head. Rows are
// F32, F16 or Q8_0 blocks. Latent attention stores one row per position; values are its front.
// Recurrent layers have a state in float32 instead, that of the last position evaluated.
//
// With an encoder there is besides, for each layer of the decoder, what it makes of the encoder's
// result; and what only the encoder works with: its residual stream, and keys and values that its
// layers use one after another.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/model_spec.h"

namespace edgemoe {

// Bytes of `size` elements. Requires: size is a multiple of 32 for kQ8_0.
constexpr size_t kv_row_bytes(kernels::KvType type, size_t size) noexcept {
  switch (type) {
    case kernels::KvType::kF32:
      return size * 4;
    case kernels::KvType::kF16:
      return size * 2;
    case kernels::KvType::kQ8_0:
      return size / 32 * 34;
  }
  return 0;
}

// "f16", "q8_0" or "f32". Errors: kArgument for any other name.
kernels::KvType kv_type_from_name(std::string_view name);

class KvCache {
 public:
  static uint64_t bytes(const ModelSpec& spec, uint32_t context, kernels::KvType type);
  // Errors: kArgument when kQ8_0 meets a head size that is not a multiple of 32; kBudget.
  KvCache(const ModelSpec& spec, uint32_t context, kernels::KvType type);

  // Positions [first, first + context) as a cache of their own, in this one's memory.
  KvCache part(uint32_t first, uint32_t context) const;

  kernels::KvType type() const noexcept { return type_; }
  uint32_t context() const noexcept { return context_; }

  // Row of position 0; add position * stride.
  std::byte* keys(uint32_t layer, uint32_t kv_head) noexcept;
  std::byte* values(uint32_t layer, uint32_t kv_head) noexcept;
  // state_floats() of the layer (recurrent_state.h), 64-byte aligned.
  float* state(uint32_t layer) noexcept {
    return reinterpret_cast<float*>(buffer_.data() + layers_[layer].keys);
  }
  // Where `layer` of a decoder keeps keys and values of the encoder's result: a layer for keys(),
  // values() and their strides.
  uint32_t cross(uint32_t layer) const noexcept {
    return num_layers_ + layer - num_encoder_layers_;
  }
  // Of the encoder: [context][width].
  float* source_stream() noexcept { return reinterpret_cast<float*>(data_); }
  // Positions that the encoder has read; 0: none, or not to the end.
  uint32_t source_length() const noexcept { return source_length_; }
  void set_source_length(uint32_t length) noexcept { source_length_ = length; }
  size_t key_stride(uint32_t layer) const noexcept { return layers_[layer].key_stride; }
  size_t value_stride(uint32_t layer) const noexcept { return layers_[layer].value_stride; }

 private:
  struct Layer {
    uint64_t keys = 0;  // offset in the buffer; of a recurrent layer: of its state
    uint64_t values = 0;
    size_t key_row = 0;  // bytes of one head
    size_t value_row = 0;
    size_t key_stride = 0;  // bytes of one position
    size_t value_stride = 0;
  };
  static Layer place_rows(const AttentionSpec& attention, uint32_t context, kernels::KvType type,
                          uint64_t& end);
  static uint64_t place(const ModelSpec& spec, uint32_t context, kernels::KvType type,
                        std::vector<Layer>& layers);

  KvCache() = default;

  kernels::KvType type_ = kernels::KvType::kF16;
  uint32_t context_ = 0;
  uint32_t num_layers_ = 0;
  uint32_t num_encoder_layers_ = 0;
  uint32_t source_length_ = 0;
  std::vector<Layer> layers_;  // and behind them those of cross()
  AlignedBuffer buffer_;
  std::byte* data_ = nullptr;  // buffer_, or the memory of the cache that this is a part of
};

}  // namespace edgemoe
