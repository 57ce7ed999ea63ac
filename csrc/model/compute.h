// Threads and kernels, as the model uses them: products of matrices with rows of activations.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/activation_rows.h"
#include "quant/layout.h"
#include "weights/matrix.h"

namespace edgemoe {

// Rows of a work item come in this multiple: the widest kernels take four row groups at a time.
inline constexpr size_t kItemRowsMultiple = 4 * kRowGroup;

// A product y = W x + bias for some rows of activations. Row t of the result is at
// out + t * out_stride.
struct Product {
  const MatrixView* matrix = nullptr;
  Activations x;
  const uint32_t* token_index = nullptr;  // row of x for result row t; null: t
  size_t num_tokens = 0;
  const float* bias = nullptr;  // [matrix->rows], may be null
  float* out = nullptr;
  size_t out_stride = 0;
};

class Compute {
 public:
  Compute(ThreadPool& pool, const kernels::KernelTable& table) : pool_(pool), table_(table) {}

  ThreadPool& pool() const noexcept { return pool_; }
  const kernels::KernelTable& table() const noexcept { return table_; }

  // Rows [row_begin, row_end) on the calling thread. Requires: as MatmulArgs.
  void multiply_rows(const Product& product, size_t row_begin, size_t row_end) const noexcept;
  // All rows of all products, on all threads, as one list of work.
  void multiply(std::span<const Product> products) const;
  // The usual case: every row of `x`, result rows one after another with `out_stride`.
  void multiply(const MatrixView& matrix, const float* bias, ActivationRows& x, float* out,
                size_t out_stride) const;
  Product product_of(const MatrixView& matrix, const float* bias, ActivationRows& x, float* out,
                     size_t out_stride) const;

  // Rows that one work item takes when `rows` are shared out: a multiple of kItemRowsMultiple,
  // small enough that threads end together.
  size_t rows_per_item(size_t rows) const noexcept;

 private:
  ThreadPool& pool_;
  const kernels::KernelTable& table_;
};

}  // namespace edgemoe
