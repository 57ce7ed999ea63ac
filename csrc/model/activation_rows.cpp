#include "model/activation_rows.h"

#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

constexpr uint64_t kAlignment = 64;

struct Sizes {
  uint64_t codes;
  uint64_t scales;
  uint64_t sums;
  uint64_t total() const { return codes + scales + sums; }
};

Sizes sizes_of(size_t rows, size_t columns, size_t block) {
  return {uint64_t{rows} * spread_code_stride(columns),
          align_up(uint64_t{rows} * ceil_div(columns, block) * sizeof(float), kAlignment),
          align_up(uint64_t{rows} * ceil_div(columns, kSumBlock) * sizeof(int16_t), kAlignment)};
}

}  // namespace

uint64_t ActivationRows::bytes(size_t max_rows, size_t max_columns) noexcept {
  return sizes_of(max_rows, max_columns, 32).total() + sizes_of(max_rows, max_columns, 256).total();
}

ActivationRows::ActivationRows(size_t max_rows, size_t max_columns)
    : buffer_(bytes(max_rows, max_columns)) {
  std::byte* place = buffer_.data();
  constexpr size_t kBlocks[] = {32, 256};
  for (size_t i = 0; i < 2; ++i) {
    const Sizes sizes = sizes_of(max_rows, max_columns, kBlocks[i]);
    rounded_[i].code_bytes = sizes.codes;
    rounded_[i].codes = reinterpret_cast<int8_t*>(place);
    rounded_[i].scales = reinterpret_cast<float*>(place + sizes.codes);
    rounded_[i].sums = reinterpret_cast<int16_t*>(place + sizes.codes + sizes.scales);
    place += sizes.total();
  }
}

void ActivationRows::set(const float* values, size_t rows, size_t columns) noexcept {
  values_ = values;
  rows_ = rows;
  columns_ = columns;
  for (Rounded& rounded : rounded_) rounded.current = false;
}

Activations ActivationRows::as(ActivationEncoding encoding, const kernels::KernelTable& table,
                               ThreadPool& pool) {
  Activations result;
  result.encoding = encoding;
  result.columns = columns_;
  result.code_stride = spread_code_stride(columns_);
  result.values = values_;
  if (encoding == ActivationEncoding::kF32) return result;
  const bool block256 = encoding == ActivationEncoding::kQ8Block256;
  Rounded& rounded = rounded_[block256 ? 1 : 0];
  if (!rounded.current) {
    EM_CHECK(rows_ * result.code_stride <= rounded.code_bytes);
    const kernels::QuantizeFn quantize =
        block256 ? table.quantize_block256 : table.quantize_block32;
    const size_t num_scales = columns_ / activation_block(encoding);
    const size_t num_sums = columns_ / kSumBlock;
    pool.parallel_for(rows_, [&](size_t row, size_t) {
      quantize(values_ + row * columns_, columns_, rounded.codes + row * result.code_stride,
               rounded.scales + row * num_scales, rounded.sums + row * num_sums);
    });
    rounded.current = true;
  }
  result.codes = rounded.codes;
  result.scales = rounded.scales;
  result.sums = rounded.sums;
  return result;
}

Activations from_row(const Activations& all, size_t first) noexcept {
  Activations part = all;
  if (all.encoding == ActivationEncoding::kF32) {
    part.values += first * all.columns;
    return part;
  }
  part.codes += first * all.code_stride;
  part.scales += first * (all.columns / activation_block(all.encoding));
  part.sums += first * (all.columns / kSumBlock);
  return part;
}

}  // namespace edgemoe
