#include "bitwidth/pack_batch.h"

#include <algorithm>

#include "quant/layout.h"

namespace edgemoe {

size_t least_buffer_bytes(const PackedTensors& packed) {
  size_t least = 0;
  for (const PackedTensor& tensor : packed.tensors) {
    const uint64_t row = std::max(row_bytes(tensor.source_type, tensor.columns()),
                                  row_bytes(tensor.type, tensor.columns()));
    least = std::max<size_t>(least, row * std::min<uint64_t>(kRowGroup, tensor.rows));
  }
  return least;
}

BatchCursor::BatchCursor(const PackedTensors& packed, size_t first_unit, const BatchLimits& limits)
    : packed_(packed),
      limits_(limits),
      tensor_(first_unit < packed.units.size() ? packed.units[first_unit].first_tensor
                                               : packed.tensors.size()) {}

// Empty when not even a row group has room.
std::optional<PackSpan> BatchCursor::next_span(size_t source_room, size_t out_room,
                                               size_t weight_room, bool is_first) const {
  const PackedTensor& tensor = packed_.tensors[tensor_];
  const PackPiece& piece = tensor.pieces[piece_];
  const uint64_t columns = tensor.columns();
  const uint64_t source_stride = row_bytes(tensor.source_type, columns);
  const uint64_t left = piece.rows - piece_row_;
  uint64_t rows = std::min(source_room / source_stride, out_room / row_bytes(tensor.type, columns));
  rows = std::min<uint64_t>(rows, std::max<uint64_t>(weight_room / columns, is_first ? 8 : 0));
  if (rows < left) rows = rows / kRowGroup * kRowGroup;
  rows = std::min(rows, left);
  if (rows == 0) return std::nullopt;
  PackSpan span;
  span.tensor = tensor_;
  span.first_row = tensor_row_;
  span.num_rows = rows;
  span.shard = piece.shard;
  span.source_offset = piece.offset + piece_row_ * source_stride;
  span.ends_tensor = tensor_row_ + rows == tensor.rows;
  return span;
}

std::vector<PackSpan> BatchCursor::next() {
  std::vector<PackSpan> spans;
  size_t source_at = 0;
  size_t out_at = 0;
  size_t loss_at = 0;
  size_t weights = 0;
  while (tensor_ < packed_.tensors.size()) {
    const size_t weight_room = limits_.weights - std::min(limits_.weights, weights);
    std::optional<PackSpan> span =
        next_span(limits_.buffer_bytes - source_at, limits_.buffer_bytes - out_at, weight_room,
                  spans.empty());
    if (!span) break;
    const PackedTensor& tensor = packed_.tensors[tensor_];
    span->source_at = source_at;
    span->out_at = out_at;
    span->loss_at = loss_at;
    source_at += span->num_rows * row_bytes(tensor.source_type, tensor.columns());
    out_at += span->num_rows * row_bytes(tensor.type, tensor.columns());
    loss_at += span->num_rows;
    weights += span->num_rows * tensor.columns();
    piece_row_ += span->num_rows;
    tensor_row_ += span->num_rows;
    if (piece_row_ == tensor.pieces[piece_].rows) {
      ++piece_;
      piece_row_ = 0;
    }
    if (span->ends_tensor) {
      ++tensor_;
      piece_ = 0;
      tensor_row_ = 0;
    }
    spans.push_back(*span);
  }
  return spans;
}

}  // namespace edgemoe
