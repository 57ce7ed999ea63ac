// Packing goes batch by batch: rows of one or several tensors that are read, packed and written
// together. One batch is read and one is written while another is packed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "bitwidth/row_packing.h"

namespace edgemoe {

// Rows of one tensor that follow each other in the source. They start a row group, and end one or
// the piece.
struct PackSpan {
  size_t tensor = 0;
  uint64_t first_row = 0;  // in the tensor
  uint64_t num_rows = 0;
  uint32_t shard = 0;
  uint64_t source_offset = 0;  // in the shard
  size_t source_at = 0;        // in the batch's buffers
  size_t out_at = 0;
  size_t loss_at = 0;
  bool ends_tensor = false;
};

struct BatchLimits {
  size_t buffer_bytes = 0;  // of the source's rows, and of the packed rows
  size_t weights = 0;
};

// The least buffer_bytes with which every row group has room.
size_t least_buffer_bytes(const PackedTensors& packed);

// Walks through the tensors from `first_unit` on.
class BatchCursor {
 public:
  BatchCursor(const PackedTensors& packed, size_t first_unit, const BatchLimits& limits);
  // The spans of the next batch; none at the end.
  std::vector<PackSpan> next();

 private:
  std::optional<PackSpan> next_span(size_t source_room, size_t out_room, size_t weight_room,
                                    bool is_first) const;

  const PackedTensors& packed_;
  BatchLimits limits_;
  size_t tensor_;
  size_t piece_ = 0;
  uint64_t piece_row_ = 0;   // next, in the piece
  uint64_t tensor_row_ = 0;  // next, in the tensor
};

// The memory of a batch.
struct PackBatch {
  std::vector<PackSpan> spans;
  AlignedBuffer source;
  AlignedBuffer out;
  std::vector<RowLoss> losses;  // of every row
};

}  // namespace edgemoe
