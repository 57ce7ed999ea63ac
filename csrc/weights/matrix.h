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

}  // namespace edgemoe
