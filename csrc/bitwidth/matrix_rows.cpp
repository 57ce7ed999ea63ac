#include "bitwidth/matrix_rows.h"

#include <array>

#include "quant/layout.h"
#include "quant/unpack.h"

namespace edgemoe {

void read_row(const MatrixView& matrix, size_t row, size_t first, size_t count,
              float* out) noexcept {
  const QuantTraits& type = traits(matrix.type);
  if (!is_packed(matrix.type)) {
    const size_t start = row * row_bytes(matrix.type, matrix.columns);
    dequantize(matrix.type, matrix.data + start + row_bytes(matrix.type, first), count, out);
  } else {
    std::array<std::byte, 256> block;  // the largest of a packed type has 210 bytes
    static_assert(sizeof block >= 210);
    for (size_t i = 0; i < count; i += type.block_elements) {
      extract_block(matrix.type, matrix.data, matrix.rows, matrix.columns, row,
                    (first + i) / type.block_elements, block.data());
      dequantize(matrix.type, block.data(), type.block_elements, out + i);
    }
  }
  if (matrix.scale == 1.0f) return;
  for (size_t i = 0; i < count; ++i) out[i] *= matrix.scale;
}

}  // namespace edgemoe
