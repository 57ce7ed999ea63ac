// Rows of activations, rounded to 8 bits at most once per encoding however many matrices they meet.
#pragma once

#include <cstdint>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"

namespace edgemoe {

class ActivationRows {
 public:
  static uint64_t bytes(size_t max_rows, size_t max_columns) noexcept;
  ActivationRows(size_t max_rows, size_t max_columns);

  // Borrows rows x columns floats, contiguous. Forgets earlier roundings.
  void set(const float* values, size_t rows, size_t columns) noexcept;

  // The rows in the encoding that a weight type multiplies; rounds them on first use.
  Activations as(ActivationEncoding encoding, const kernels::KernelTable& table, ThreadPool& pool);
  size_t rows() const noexcept { return rows_; }
  size_t columns() const noexcept { return columns_; }

 private:
  struct Rounded {
    bool current = false;
    size_t code_bytes = 0;  // room for codes
    int8_t* codes = nullptr;
    float* scales = nullptr;
    int16_t* sums = nullptr;
  };
  AlignedBuffer buffer_;
  Rounded rounded_[2];  // kQ8Block32, kQ8Block256
  const float* values_ = nullptr;
  size_t rows_ = 0;
  size_t columns_ = 0;
};

// The same activations from row `first` on.
Activations from_row(const Activations& all, size_t first) noexcept;

}  // namespace edgemoe
