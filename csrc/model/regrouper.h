// Brings matrices into the in-memory layout with all threads. Owns one group of rows of scratch
// per thread.
#pragma once

#include <cstddef>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "quant/layout.h"
#include "weights/matrix.h"

namespace edgemoe {

class Regrouper {
 public:
  static size_t scratch_bytes(size_t max_row_bytes, size_t num_threads) noexcept {
    return stride(max_row_bytes) * num_threads;
  }
  // max_row_bytes: the longest row that will come.
  Regrouper(ThreadPool& pool, size_t max_row_bytes)
      : pool_(pool),
        stride_(stride(max_row_bytes)),
        scratch_(scratch_bytes(max_row_bytes, pool.num_threads())) {}

  // Rows [first, first + count) on the calling thread, which is `worker` of the pool. Requires:
  // they start at a group and end at one, or with the matrix.
  void regroup_rows(const MatrixView& matrix, size_t first, size_t count, size_t worker) {
    if (!is_packed(matrix.type)) return;
    // Slots are our memory; the view is read-only for everybody else.
    auto* data = const_cast<std::byte*>(matrix.data);
    regroup(matrix.type, data + first * row_bytes(matrix.type, matrix.columns), count,
            matrix.columns, scratch_.data() + worker * stride_);
  }

  void regroup_matrix(QuantType type, std::byte* data, size_t rows, size_t columns) {
    if (!is_packed(type)) return;
    const size_t chunk_rows = kGroupsPerItem * kRowGroup;
    const size_t row_size = row_bytes(type, columns);
    pool_.parallel_for((rows + chunk_rows - 1) / chunk_rows, [&](size_t item, size_t worker) {
      const size_t first = item * chunk_rows;
      const size_t count = rows - first < chunk_rows ? rows - first : chunk_rows;
      regroup(type, data + first * row_size, count, columns, scratch_.data() + worker * stride_);
    });
  }

 private:
  static constexpr size_t kGroupsPerItem = 8;
  static size_t stride(size_t max_row_bytes) noexcept {
    return (kRowGroup * max_row_bytes + 63) / 64 * 64;
  }
  ThreadPool& pool_;
  size_t stride_;
  AlignedBuffer scratch_;
};

}  // namespace edgemoe
