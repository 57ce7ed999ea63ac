// A model that is to be packed: its expert matrices and its other tensors, wherever the file keeps
// them (stacked, fused, one tensor per expert, in shards, or packed already). Low copies of a
// packed model are left behind. No data is read.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "weights/expert_layout.h"

namespace edgemoe {

// One matrix of one expert. `rows` lie one after another from `offset` on.
struct ExpertSource {
  const TensorInfo* tensor = nullptr;  // null: the expert has no such matrix
  uint64_t offset = 0;                 // absolute, in the tensor's shard
  uint64_t rows = 0;
  uint64_t columns() const noexcept { return tensor->columns(); }
  QuantType type() const noexcept { return tensor->type; }
};

// A tensor that is no expert's matrix.
struct DenseSource {
  const TensorInfo* tensor = nullptr;
  std::string name;           // in the output
  bool may_quantize = false;  // a matrix of weights, whose type a plan may change
};

class PackSource {
 public:
  // Errors: those of GgufFile::open and read_counts; kFormat for expert tensors of odd shapes or
  // with experts that are missing; kUnsupported for a packed file of a newer version.
  explicit PackSource(const std::string& path);

  const GgufFile& gguf() const noexcept { return gguf_; }
  const std::string& architecture() const noexcept { return architecture_; }
  const std::string& name() const noexcept { return name_; }
  uint32_t num_layers() const noexcept { return num_layers_; }
  uint32_t num_experts() const noexcept { return num_experts_; }
  bool is_moe(uint32_t layer) const noexcept;
  const ExpertSource& expert(uint32_t layer, uint32_t expert, ExpertMatrix matrix) const noexcept {
    return experts_[index(layer, expert)][static_cast<size_t>(matrix)];
  }
  const std::vector<DenseSource>& dense() const noexcept { return dense_; }
  // Expert matrices of packed types are in the in-memory layout already.
  bool is_packed() const noexcept { return is_packed_; }

 private:
  size_t index(uint32_t layer, uint32_t expert) const noexcept {
    return size_t{layer} * num_experts_ + expert;
  }
  void sort_tensor(const TensorInfo& tensor);
  void add_dense(const TensorInfo& tensor);
  void add_experts(const TensorInfo& tensor, uint32_t layer, ExpertMatrix matrix, bool fused);
  void add_expert(const TensorInfo& tensor, uint32_t layer, uint32_t expert, ExpertMatrix matrix);
  void place(size_t index, ExpertMatrix matrix, const ExpertSource& source);
  void check_complete() const;

  GgufFile gguf_;
  std::string architecture_;
  std::string name_;
  uint32_t num_layers_ = 0;
  uint32_t num_experts_ = 0;
  bool is_packed_ = false;
  std::vector<std::array<ExpertSource, kNumExpertMatrices>> experts_;  // by layer, then expert
  std::vector<DenseSource> dense_;                                     // in the file's order
};

}  // namespace edgemoe
