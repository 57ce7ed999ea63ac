// Metadata, architecture row and tensors present -> the attention of each layer.
#pragma once

#include <cstdint>
#include <vector>

#include "model/architectures.h"
#include "model/model_spec.h"
#include "model/spec_keys.h"
#include "weights/model_tensors.h"

namespace edgemoe {

class AttentionReader {
 public:
  // `spec` has its counts and widths. All are borrowed. Errors: as read_spec.
  AttentionReader(const SpecKeys& keys, const ArchitectureRow& row, const ModelTensors& tensors,
                  const ModelSpec& spec, uint32_t num_blocks);

  AttentionSpec read(uint32_t layer) const;

 private:
  AttentionSpec grouped(uint32_t layer) const;
  AttentionSpec latent(uint32_t layer) const;
  AttentionSpec short_convolution() const;
  AttentionSpec state_space(AttentionKind kind) const;
  AttentionSpec mamba2() const;
  AttentionSpec mamba() const;
  AttentionSpec delta_net() const;
  RopeSpec rope(uint32_t dimensions, bool in_window) const;
  RopeScaling scaling() const;
  void read_windows(uint32_t num_blocks);
  uint32_t window_width() const;
  void set_norms(uint32_t layer, AttentionSpec& attention) const;
  float default_scale(uint32_t key_size) const;

  const SpecKeys& keys_;
  const ArchitectureRow& row_;
  const ModelTensors& tensors_;
  const ModelSpec& spec_;
  std::vector<uint64_t> heads_;
  std::vector<uint64_t> kv_heads_;
  uint32_t window_ = 0;           // 0: no layer has one
  std::vector<bool> has_window_;  // by layer
};

}  // namespace edgemoe
