// What happens to the rows of one matrix on their way from the source to the output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bitwidth/packed_tensors.h"

namespace edgemoe {

// Of one row: what quantising changed, and what there was, both weighted by importance.
struct RowLoss {
  double error = 0;
  double power = 0;
};

// Rows that are packed at a time.
inline constexpr size_t kTaskRows = 16;

// Up to kTaskRows rows of one matrix, which start a group of rows.
struct RowTask {
  const PackedTensor* tensor = nullptr;
  uint64_t first_row = 0;  // in the tensor
  size_t num_rows = 0;
  std::byte* source = nullptr;  // is changed
  std::byte* out = nullptr;
  RowLoss* losses = nullptr;  // of each row; zeros where the type stays
};

// Memory of one thread.
class RowScratch {
 public:
  // For rows of up to so many weights. Errors: kBudget.
  explicit RowScratch(size_t columns);
  static uint64_t bytes(size_t columns) noexcept;

  float* weights() noexcept { return weights_.data(); }
  float* packed() noexcept { return packed_.data(); }
  std::byte* group() noexcept { return group_.data(); }
  float* scale() noexcept { return scale_.data(); }
  std::byte* feedback() noexcept { return reinterpret_cast<std::byte*>(feedback_.data()); }

 private:
  std::vector<float> weights_;  // [kTaskRows][columns]
  std::vector<float> packed_;
  std::vector<float> scale_;
  std::vector<float> feedback_;
  std::vector<std::byte> group_;
};

// A weight that is no finite number.
struct BadWeight {
  uint64_t row = 0;
  uint64_t column = 0;
};

// Packs the rows. False, and `bad` is set, when a weight that was to be quantised is not finite.
bool pack_rows(const RowTask& task, RowScratch& scratch, BadWeight& bad) noexcept;

}  // namespace edgemoe
