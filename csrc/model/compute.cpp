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
  kernels::product_of(table_, matrix.type, args.num_tokens)(args);
  for (size_t token = 0; token < product.num_tokens; ++token) {
    float* out = product.out + token * product.out_stride + row_begin;
    if (matrix.scale != 1.0f) table_.scale(matrix.scale, row_end - row_begin, out);
    if (product.bias != nullptr) table_.add(product.bias + row_begin, row_end - row_begin, out);
  }
}

size_t Compute::rows_per_item(size_t rows) const noexcept {
  constexpr size_t kItemsPerThread = 8;
  const size_t items = pool_.num_threads() == 1 ? 1 : pool_.num_threads() * kItemsPerThread;
  return align_up(ceil_div(rows, items), kItemRowsMultiple);
}

void Compute::multiply(std::span<const Product> products) const {
  size_t total = 0;
  for (const Product& product : products) total += product.matrix->rows;
  const size_t step = rows_per_item(total);
  size_t items = 0;
  for (const Product& product : products) items += ceil_div(product.matrix->rows, step);
  pool_.parallel_runs(items, [&](size_t item, size_t) {
    for (const Product& product : products) {
      const size_t rows = product.matrix->rows;
      const size_t product_items = ceil_div(rows, step);
      if (item < product_items) {
        return multiply_rows(product, item * step, std::min(rows, (item + 1) * step));
      }
      item -= product_items;
    }
  });
}

void Compute::multiply(const MatrixView& matrix, const float* bias, ActivationRows& x, float* out,
                       size_t out_stride) const {
  const Product product = product_of(matrix, bias, x, out, out_stride);
  multiply({&product, 1});
}

Product Compute::product_of(const MatrixView& matrix, const float* bias, ActivationRows& x,
                            float* out, size_t out_stride) const {
  Product product;
  product.matrix = &matrix;
  product.x = x.as(traits(matrix.type).activations, table_, pool_);
  product.num_tokens = x.rows();
  product.bias = bias;
  product.out = out;
  product.out_stride = out_stride;
  return product;
}

}  // namespace edgemoe
