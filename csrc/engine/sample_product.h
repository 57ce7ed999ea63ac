// A product to measure: some activations, and room for what comes of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/units.h"
#include "kernels/kernel_table.h"

namespace edgemoe {

// Borrows the weights, `rows` x `columns` in the in-memory layout. Values do not matter to speed.
class SampleProduct {
 public:
  SampleProduct(QuantType type, uint64_t rows, uint64_t columns, uint32_t num_tokens,
                const std::byte* weights)
      : values_(num_tokens * columns, 1.0f),
        codes_(num_tokens * spread_code_stride(columns), 1),
        scales_(num_tokens * ceil_div(columns, 32), 1.0f),
        sums_(num_tokens * ceil_div(columns, kSumBlock), int16_t{16}),
        out_(num_tokens * rows) {
    args_.weights = weights;
    args_.rows = rows;
    args_.columns = columns;
    args_.x = {traits(type).activations,
               columns,
               spread_code_stride(columns),
               values_.data(),
               codes_.data(),
               scales_.data(),
               sums_.data()};
    args_.num_tokens = num_tokens;
    args_.out = out_.data();
    args_.out_stride = rows;
    args_.row_end = rows;
  }

  SampleProduct(SampleProduct&&) = default;  // a copy would point into the original

  const kernels::MatmulArgs& args() const noexcept { return args_; }

 private:
  std::vector<float> values_;
  std::vector<int8_t> codes_;
  std::vector<float> scales_;
  std::vector<int16_t> sums_;
  std::vector<float> out_;
  kernels::MatmulArgs args_{};
};

}  // namespace edgemoe
