#include "weights/expert_layout.h"

#include <algorithm>

#include "base/units.h"
#include "io/read_queue.h"

namespace edgemoe {
namespace {

// Rows of a matrix start at least this aligned to their window, so that buffered files too give
// every range a place of its own.
constexpr uint64_t kLeastAlignment = 64;

// Adds the range of `tensor` that holds one expert, at the end of the slot.
void add_range(const ExpertTensor& tensor, uint32_t expert, uint64_t alignment,
               ExpertPlace& place) {
  const uint64_t matrix_bytes = uint64_t{tensor.rows} * row_bytes(tensor.type, tensor.columns);
  const uint64_t bytes = tensor.fused_gate_up ? 2 * matrix_bytes : matrix_bytes;
  ExpertRange& range = place.ranges[place.num_ranges++];
  range.shard = tensor.shards[expert];
  range.offset = tensor.offsets[expert];
  range.bytes = bytes;
  range.slot_offset = place.slot_bytes;
  place.weight_bytes += bytes;

  const uint64_t first = range.slot_offset + range.offset % alignment;
  const auto place_matrix = [&](ExpertMatrix matrix, uint64_t offset) {
    ExpertMatrixPlace& to = place.matrices[static_cast<size_t>(matrix)];
    to.present = true;
    to.type = tensor.type;
    to.rows = tensor.rows;
    to.columns = tensor.columns;
    to.slot_offset = offset;
    to.scale = tensor.scales.empty() ? 1.0f : tensor.scales[expert];
  };
  place_matrix(tensor.matrix, first);
  if (tensor.fused_gate_up) place_matrix(ExpertMatrix::kUp, first + matrix_bytes);
  place.slot_bytes = align_up(range.slot_offset + window_bytes(range.offset, bytes, alignment),
                              std::max(alignment, kLeastAlignment));
}

}  // namespace

ExpertLayout::ExpertLayout(std::span<const std::vector<ExpertTensor>> tensors, uint32_t num_experts,
                           uint64_t alignment)
    : num_layers_(static_cast<uint32_t>(tensors.size())),
      num_experts_(num_experts),
      alignment_(alignment),
      places_(tensors.size() * num_experts) {
  for (uint32_t layer = 0; layer < num_layers_; ++layer) {
    for (uint32_t expert = 0; expert < num_experts_; ++expert) {
      ExpertPlace& place = places_[layer * num_experts_ + expert];
      // Files list their tensors in any order; what is used first comes first.
      for (const ExpertMatrix matrix :
           {ExpertMatrix::kGate, ExpertMatrix::kUp, ExpertMatrix::kDown}) {
        for (const ExpertTensor& tensor : tensors[layer]) {
          if (tensor.matrix == matrix) add_range(tensor, expert, alignment_, place);
        }
      }
      max_slot_bytes_ = std::max(max_slot_bytes_, place.slot_bytes);
      total_slot_bytes_ += place.slot_bytes;
      total_weight_bytes_ += place.weight_bytes;
    }
  }
}

bool ExpertLayout::is_moe(uint32_t layer) const noexcept {
  return num_experts_ != 0 && place(layer, 0).num_ranges != 0;
}

}  // namespace edgemoe
