// A weight matrix in memory, ready for the kernels. Borrows its bytes.
#pragma once

#include <cstddef>

#include "quant/quant_type.h"

namespace edgemoe {

struct MatrixView {
  const std::byte* data = nullptr;  // in-memory layout (quant/layout.h)
  QuantType type = QuantType::kF32;
  size_t rows = 0;
  size_t columns = 0;
  float scale = 1.0f;  // multiplies the products (NVFP4 files carry it beside the tensor)
  explicit operator bool() const noexcept { return data != nullptr; }
};

// The rows from `first` on, a matrix of its own. Requires: first is a multiple of kRowGroup.
inline MatrixView rows_from(const MatrixView& matrix, size_t first) noexcept {
  MatrixView part = matrix;
  part.data += first * row_bytes(matrix.type, matrix.columns);
  part.rows -= first;
  return part;
}

}  // namespace edgemoe
