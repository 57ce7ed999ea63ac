#include "model/compute.h"

#include <algorithm>

#include "base/units.h"
#include "quant/layout.h"

namespace edgemoe {

void Compute::multiply_rows(const Product& product, size_t row_begin,
                            size_t row_end) const noexcept {
  const MatrixView& matrix = *product.matrix;
  kernels::MatmulArgs args;
  args.weights = matrix.data;
  args.rows = matrix.rows;
  args.columns = matrix.columns;
  args.x = product.x;
  args.token_index = product.token_index;
  args.num_tokens = product.num_tokens;
  args.out = product.out;
  args.out_stride = product.out_stride;
  args.row_begin = row_begin;
  args.row_end = row_end;
  table_.matmul[static_cast<size_t>(matrix.type)](args);
  if (matrix.scale == 1.0f) return;
  for (size_t token = 0; token < product.num_tokens; ++token) {
    table_.scale(matrix.scale, row_end - row_begin,
                 product.out + token * product.out_stride + row_begin);
  }
}

size_t Compute::rows_per_item(size_t rows) const noexcept {
  constexpr size_t kItemsPerThread = 4;
  constexpr size_t kItemRows = 2 * kRowGroup;  // the widest kernels take two groups at a time
  const size_t items = pool_.num_threads() == 1 ? 1 : pool_.num_threads() * kItemsPerThread;
  return align_up(ceil_div(rows, items), kItemRows);
}

void Compute::multiply(const Product& product) const {
  const size_t rows = product.matrix->rows;
  const size_t step = rows_per_item(rows);
  pool_.parallel_for(ceil_div(rows, step), [&](size_t item, size_t) {
    multiply_rows(product, item * step, std::min(rows, (item + 1) * step));
  });
}

void Compute::multiply(const MatrixView& matrix, ActivationRows& x, float* out,
                       size_t out_stride) const {
  Product product;
  product.matrix = &matrix;
  product.x = x.as(traits(matrix.type).activations, table_, pool_);
  product.num_tokens = x.rows();
  product.out = out;
  product.out_stride = out_stride;
  multiply(product);
}

void add_bias(const Compute& compute, const float* bias, size_t size, float* rows, size_t num_rows,
              size_t stride) {
  if (bias == nullptr) return;
  for (size_t row = 0; row < num_rows; ++row) compute.table().add(bias, size, rows + row * stride);
}

}  // namespace edgemoe
