// Where the experts lie: (layer, expert) -> ranges of the files, and how they are placed in a slot.
// Pure bookkeeping; built once from the tensor directory.
//
// Within a layer experts go by number. Where low copies are used, that of expert E has the number
// E + num_experts(), with a place of its own.
//
// An expert is up to three matrices (gate, up, down). A stock tensor [columns, rows, experts] gives
// every expert one range; a fused gate_up tensor gives gate and up in one range; old files and
// packed containers have one tensor per expert, each of its own type. Matrices that lie one after
// another, as a packed container has them, share a range. A slot holds the ranges one after
// another, each as the aligned window that a direct read brings, so nothing is copied.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/quant_type.h"

namespace edgemoe {

enum class ExpertMatrix : uint8_t { kGate, kUp, kDown };
inline constexpr size_t kNumExpertMatrices = 3;

struct ExpertRange {
  uint32_t shard = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t slot_offset = 0;  // where the aligned window starts in the slot
};

struct ExpertMatrixPlace {
  bool present = false;
  QuantType type = QuantType::kF32;
  uint32_t rows = 0;
  uint32_t columns = 0;
  uint64_t slot_offset = 0;  // first byte of the matrix in the slot (not aligned in general)
  float scale = 1.0f;
};

struct ExpertPlace {
  uint32_t num_ranges = 0;
  std::array<ExpertRange, kNumExpertMatrices> ranges;  // gate (and up) before down
  std::array<ExpertMatrixPlace, kNumExpertMatrices> matrices;
  uint64_t cut = 0;           // where down begins in the file when the only range can be read in
                              // two parts, the second of down alone; else 0
  uint64_t slot_bytes = 0;    // multiple of the alignment
  uint64_t weight_bytes = 0;  // of the matrices
};

// One matrix of one layer for all experts, as found in the tensor directory.
struct ExpertTensor {
  ExpertMatrix matrix = ExpertMatrix::kGate;
  bool fused_gate_up = false;  // rows hold gate, then up
  uint32_t rows = 0;           // of one matrix (half of the tensor's when fused)
  uint32_t columns = 0;
  std::vector<QuantType> types;   // per expert
  std::vector<uint32_t> shards;   // per expert
  std::vector<uint64_t> offsets;  // per expert, absolute in the shard
  std::vector<float> scales;      // per expert, or empty
};

class ExpertLayout {
 public:
  // tensors[layer] lists the expert tensors of that MoE layer (empty for a dense layer).
  // `alignment` is the direct-I/O alignment (1 for buffered access). `regrouped`: the file has the
  // experts in the in-memory layout (quant/layout.h). low_copies: as tensors, of the low copies
  // that are to be used; an offset of 0: the expert has none.
  ExpertLayout(std::span<const std::vector<ExpertTensor>> tensors, uint32_t num_experts,
               uint64_t alignment, bool regrouped = false,
               std::span<const std::vector<ExpertTensor>> low_copies = {});

  uint32_t num_layers() const noexcept { return num_layers_; }    // dense layers included
  uint32_t num_experts() const noexcept { return num_experts_; }  // of a layer
  uint32_t numbers_per_layer() const noexcept { return numbers_per_layer_; }  // low copies included
  bool has_low_copies() const noexcept { return numbers_per_layer_ != num_experts_; }
  bool is_low_copy(uint32_t number) const noexcept { return number >= num_experts_; }
  // The expert that the number stands for, whichever copy it is.
  uint32_t expert_of(uint32_t number) const noexcept {
    return is_low_copy(number) ? number - num_experts_ : number;
  }
  // The number of the expert's low copy, or of the expert itself where it has none.
  uint32_t low_copy_of(uint32_t layer, uint32_t expert) const noexcept;
  bool is_moe(uint32_t layer) const noexcept;
  const ExpertPlace& place(uint32_t layer, uint32_t number) const noexcept {
    return places_[layer * numbers_per_layer_ + number];
  }
  uint64_t alignment() const noexcept { return alignment_; }
  bool is_regrouped() const noexcept { return regrouped_; }  // as the file has it
  uint64_t max_slot_bytes() const noexcept { return max_slot_bytes_; }
  // All experts resident: without low copies, which nobody reads then.
  uint64_t total_slot_bytes() const noexcept { return total_slot_bytes_; }
  uint64_t total_weight_bytes() const noexcept { return total_weight_bytes_; }

 private:
  uint32_t num_layers_ = 0;
  uint32_t num_experts_ = 0;
  uint32_t numbers_per_layer_ = 0;
  uint64_t alignment_ = 1;
  bool regrouped_ = false;
  uint64_t max_slot_bytes_ = 0;
  uint64_t total_slot_bytes_ = 0;
  uint64_t total_weight_bytes_ = 0;
  std::vector<ExpertPlace> places_;  // by layer, then number
};

}  // namespace edgemoe
