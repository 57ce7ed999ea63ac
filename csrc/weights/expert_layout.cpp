#include "weights/expert_layout.h"

#include <algorithm>

#include "base/units.h"
#include "io/read_queue.h"

namespace edgemoe {
namespace {

// Rows of a matrix start at least this aligned to their window, so that buffered files too give
// every range a place of its own.
constexpr uint64_t kLeastAlignment = 64;

// Between matrices that share a range lies at most the padding of a packed container: less than
// what any device reads at a time, so reading it costs nothing.
constexpr uint64_t kMaxPadding = 4096;

bool follows(const ExpertRange& range, uint32_t shard, uint64_t offset) noexcept {
  const uint64_t end = range.offset + range.bytes;
  return shard == range.shard && offset >= end && offset - end < kMaxPadding;
}

// Adds the bytes of `tensor` that hold one expert at the end of the slot: to the last range where
// they follow it in the file, else as a range of their own.
void add_tensor(const ExpertTensor& tensor, uint32_t expert, uint64_t alignment,
                ExpertPlace& place) {
  const QuantType type = tensor.types[expert];
  const uint64_t matrix_bytes = uint64_t{tensor.rows} * row_bytes(type, tensor.columns);
  const uint64_t bytes = tensor.fused_gate_up ? 2 * matrix_bytes : matrix_bytes;
  const uint64_t offset = tensor.offsets[expert];
  ExpertRange* range = place.num_ranges > 0 ? &place.ranges[place.num_ranges - 1] : nullptr;
  if (range == nullptr || !follows(*range, tensor.shards[expert], offset)) {
    range = &place.ranges[place.num_ranges++];
    *range = {tensor.shards[expert], offset, 0, place.slot_bytes};
  }
  const bool ends_range = offset != range->offset;
  if (tensor.matrix == ExpertMatrix::kDown && ends_range && place.num_ranges == 1 &&
      offset % alignment == 0) {
    place.cut = offset;
  }
  range->bytes = offset + bytes - range->offset;
  place.weight_bytes += bytes;

  const uint64_t first = range->slot_offset + range->offset % alignment + (offset - range->offset);
  const auto place_matrix = [&](ExpertMatrix matrix, uint64_t slot_offset) {
    ExpertMatrixPlace& to = place.matrices[static_cast<size_t>(matrix)];
    to.present = true;
    to.type = type;
    to.rows = tensor.rows;
    to.columns = tensor.columns;
    to.slot_offset = slot_offset;
    to.scale = tensor.scales.empty() ? 1.0f : tensor.scales[expert];
  };
  place_matrix(tensor.matrix, first);
  if (tensor.fused_gate_up) place_matrix(ExpertMatrix::kUp, first + matrix_bytes);
  place.slot_bytes =
      align_up(range->slot_offset + window_bytes(range->offset, range->bytes, alignment),
               std::max(alignment, kLeastAlignment));
}

// Files list their tensors in any order; what is used first comes first.
ExpertPlace place_of(const std::vector<ExpertTensor>& tensors, uint32_t expert,
                     uint64_t alignment) {
  ExpertPlace place;
  for (const ExpertMatrix matrix : {ExpertMatrix::kGate, ExpertMatrix::kUp, ExpertMatrix::kDown}) {
    for (const ExpertTensor& tensor : tensors) {
      if (tensor.matrix == matrix) add_tensor(tensor, expert, alignment, place);
    }
  }
  return place;
}

bool has_copy(const std::vector<ExpertTensor>& tensors, uint32_t expert) noexcept {
  return !tensors.empty() && tensors.front().offsets[expert] != 0;
}

}  // namespace

ExpertLayout::ExpertLayout(std::span<const std::vector<ExpertTensor>> tensors, uint32_t num_experts,
                           uint64_t alignment, bool regrouped,
                           std::span<const std::vector<ExpertTensor>> low_copies)
    : num_layers_(static_cast<uint32_t>(tensors.size())),
      num_experts_(num_experts),
      numbers_per_layer_(low_copies.empty() ? num_experts : 2 * num_experts),
      alignment_(alignment),
      regrouped_(regrouped),
      places_(tensors.size() * numbers_per_layer_) {
  for (uint32_t layer = 0; layer < num_layers_; ++layer) {
    ExpertPlace* const places = places_.data() + size_t{layer} * numbers_per_layer_;
    for (uint32_t expert = 0; expert < num_experts_; ++expert) {
      places[expert] = place_of(tensors[layer], expert, alignment_);
      max_slot_bytes_ = std::max(max_slot_bytes_, places[expert].slot_bytes);
      total_slot_bytes_ += places[expert].slot_bytes;
      total_weight_bytes_ += places[expert].weight_bytes;
      if (low_copies.empty() || !has_copy(low_copies[layer], expert)) continue;
      ExpertPlace& low = places[num_experts_ + expert];
      low = place_of(low_copies[layer], expert, alignment_);
      max_slot_bytes_ = std::max(max_slot_bytes_, low.slot_bytes);
    }
  }
}

uint32_t ExpertLayout::low_copy_of(uint32_t layer, uint32_t expert) const noexcept {
  if (!has_low_copies() || place(layer, num_experts_ + expert).num_ranges == 0) return expert;
  return num_experts_ + expert;
}

bool ExpertLayout::is_moe(uint32_t layer) const noexcept {
  return num_experts_ != 0 && place(layer, 0).num_ranges != 0;
}

}  // namespace edgemoe
