// Rows of a matrix in the in-memory layout as float32.
#pragma once

#include <cstddef>

#include "weights/matrix.h"

namespace edgemoe {

// Weights of `row` from column `first` on, `count` of them, the matrix's factor included. Requires:
// first and count are multiples of the type's block.
void read_row(const MatrixView& matrix, size_t row, size_t first, size_t count,
              float* out) noexcept;

}  // namespace edgemoe
