#include "bitwidth/quantization_error.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/units.h"
#include "bitwidth/matrix_rows.h"
#include "quant/quantize.h"
#include "quant/unpack.h"

namespace edgemoe {
namespace {

constexpr size_t kNormColumns = 256;  // a multiple of every block
constexpr uint64_t kAlignment = 64;
constexpr size_t kGate = static_cast<size_t>(ExpertMatrix::kGate);
constexpr size_t kUp = static_cast<size_t>(ExpertMatrix::kUp);
constexpr size_t kDown = static_cast<size_t>(ExpertMatrix::kDown);

// Original and quantised weights of a group of rows as floats, its quantised bytes, of which F32
// has the most, and what error feedback works in.
uint64_t group_scratch_bytes(size_t most_columns) noexcept {
  const size_t columns = std::max(most_columns, kNormColumns);
  return align_up(3 * kFeedbackRows * columns * sizeof(float), kAlignment) +
         align_up(feedback_scratch_bytes(columns), kAlignment);
}

bool fits(QuantType type, size_t columns) noexcept {
  return columns % traits(type).block_elements == 0;
}

size_t sampled_rows(size_t rows, size_t most_rows) noexcept {
  return most_rows == 0 ? rows : std::min(rows, most_rows);
}

// The row that sample `i` of `count` stands for: the middle of its part of the rows.
size_t row_of_sample(size_t i, size_t count, size_t rows) noexcept {
  return (2 * i + 1) * rows / (2 * count);
}

}  // namespace

struct QuantizationError::Scratch {
  float* weights;       // [rows][columns]
  float* quantised;     // [rows][columns]
  std::byte* bytes;     // of a group of rows
  std::byte* feedback;  // of error_feedback.h
};

// Sampled rows [first, first + count) of a matrix.
struct QuantizationError::Rows {
  const MatrixView* matrix;
  size_t num_samples;
  size_t first;
  size_t count;             // at most kFeedbackRows
  const float* importance;  // of the columns; null: alike
  const CovarianceFactor* covariance;
  double* errors;  // [count][candidates]
};

uint64_t QuantizationError::bytes(size_t most_columns, size_t num_candidates,
                                  size_t num_threads) noexcept {
  // Rows and columns of the matrices are those of one another.
  const uint64_t per_row = (3 + kNumExpertMatrices * num_candidates) * sizeof(double);
  return num_threads * group_scratch_bytes(most_columns) + most_columns * per_row;
}

QuantizationError::QuantizationError(std::span<const QuantType> candidates, size_t most_rows,
                                     size_t most_columns, size_t num_threads)
    : candidates_(candidates.begin(), candidates.end()),
      most_rows_(most_rows),
      most_columns_(std::max(most_columns, kNormColumns)),
      scratch_(num_threads * group_scratch_bytes(most_columns)) {
  for (const QuantType type : candidates_) {
    if (can_quantize(type)) continue;
    throw Error(ErrorCode::kArgument, "there is no quantiser for the candidate type " +
                                          std::string(traits(type).name) + "; leave it out");
  }
}

QuantizationError::Scratch QuantizationError::scratch_of(size_t worker) noexcept {
  auto* floats =
      reinterpret_cast<float*>(scratch_.data() + worker * group_scratch_bytes(most_columns_));
  const size_t group = kFeedbackRows * most_columns_;
  return {floats, floats + group, reinterpret_cast<std::byte*>(floats + 2 * group),
          scratch_.data() + (worker + 1) * group_scratch_bytes(most_columns_) -
              align_up(feedback_scratch_bytes(most_columns_), kAlignment)};
}

void QuantizationError::measure_down_norms(ThreadPool& pool, const MatrixView& down) {
  down_norms_.assign(down.columns, 0.0);
  pool.parallel_for(ceil_div(down.columns, kNormColumns), [&](size_t item, size_t worker) {
    const size_t first = item * kNormColumns;
    const size_t count = std::min(kNormColumns, down.columns - first);
    float* weights = scratch_of(worker).weights;
    for (size_t row = 0; row < down.rows; ++row) {
      read_row(down, row, first, count, weights);
      for (size_t i = 0; i < count; ++i) {
        down_norms_[first + i] += double{weights[i]} * double{weights[i]};
      }
    }
  });
}

// The rows in a type: scratch.weights to scratch.quantised.
void QuantizationError::quantize_rows(QuantType type, const Rows& rows,
                                      const Scratch& scratch) noexcept {
  const size_t columns = rows.matrix->columns;
  const uint64_t bytes = row_bytes(type, columns);
  const FeedbackFactor& factor = rows.covariance->factor;
  if (factor.upper != nullptr && can_feed_back(type)) {
    quantize_with_feedback(type, {scratch.weights, rows.count, columns, rows.importance}, factor,
                           scratch.bytes, scratch.feedback);
  } else {
    for (size_t i = 0; i < rows.count; ++i) {
      quantize_row(type, scratch.weights + i * columns, columns, rows.importance,
                   scratch.bytes + i * bytes);
    }
  }
  for (size_t i = 0; i < rows.count; ++i) {
    dequantize(type, scratch.bytes + i * bytes, columns, scratch.quantised + i * columns);
  }
}

// The weighted squared errors of some rows in every candidate type.
bool QuantizationError::measure_rows(const Rows& rows, const Scratch& scratch) noexcept {
  const MatrixView& matrix = *rows.matrix;
  const size_t columns = matrix.columns;
  for (size_t i = 0; i < rows.count; ++i) {
    read_row(matrix, row_of_sample(rows.first + i, rows.num_samples, matrix.rows), 0, columns,
             scratch.weights + i * columns);
  }
  for (size_t i = 0; i < rows.count * columns; ++i) {
    if (!std::isfinite(scratch.weights[i])) return false;
  }
  const CovarianceFactor& covariance = *rows.covariance;
  for (size_t candidate = 0; candidate < candidates_.size(); ++candidate) {
    const QuantType type = candidates_[candidate];
    std::array<double, kFeedbackRows> errors{};
    if (type != matrix.type && fits(type, columns)) {
      quantize_rows(type, rows, scratch);
      if (covariance.factor.upper != nullptr) {
        measure_feedback_errors({scratch.weights, rows.count, columns, rows.importance},
                                scratch.quantised, covariance.factor, covariance.pivots,
                                errors.data(), scratch.feedback);
      } else {
        for (size_t i = 0; i < rows.count * columns; ++i) {
          const double difference = double{scratch.quantised[i]} - double{scratch.weights[i]};
          const double weight =
              rows.importance == nullptr ? 1.0 : double{rows.importance[i % columns]};
          errors[i / columns] += weight * (difference * difference);
        }
      }
    }
    for (size_t i = 0; i < rows.count; ++i) {
      rows.errors[i * candidates_.size() + candidate] = errors[i];
    }
  }
  return true;
}

// Errors of the sampled rows, each times its row's weight (null: 1), for all rows. What the sampled
// rows' weights lack of all weights is taken to have the same mean error.
double QuantizationError::total(const MatrixView& matrix, const double* row_weight,
                                const double* row_errors, size_t stride) const noexcept {
  const size_t count = sampled_rows(matrix.rows, most_rows_);
  double sum = 0.0;
  double plain_sum = 0.0;
  double sampled_weight = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const size_t row = row_of_sample(i, count, matrix.rows);
    const double weight = row_weight == nullptr ? 1.0 : row_weight[row];
    sum += weight * row_errors[i * stride];
    plain_sum += row_errors[i * stride];
    sampled_weight += weight;
  }
  if (count == matrix.rows) return sum;
  double all_weight = row_weight == nullptr ? static_cast<double>(matrix.rows) : 0.0;
  for (size_t row = 0; row_weight != nullptr && row < matrix.rows; ++row) {
    all_weight += row_weight[row];
  }
  if (all_weight == 0.0) return 0.0;
  if (sampled_weight == 0.0) return plain_sum / static_cast<double>(count) * all_weight;
  return sum * (all_weight / sampled_weight);
}

bool QuantizationError::measure(ThreadPool& pool, const ExpertMatrices& matrices,
                                const ExpertImportance& importance,
                                const ExpertErrorPlaces& places) {
  const size_t units = matrices[kGate].rows;
  const size_t stride = candidates_.size();
  measure_down_norms(pool, matrices[kDown]);
  row_weights_.resize(2 * units);
  for (size_t unit = 0; unit < units; ++unit) {
    row_weights_[unit] = down_norms_[unit] * double{importance.gate_slope[unit]};
    row_weights_[units + unit] = down_norms_[unit] * double{importance.up_slope[unit]};
    places.gate_row_weight[unit] = static_cast<float>(row_weights_[unit]);
    places.up_row_weight[unit] = static_cast<float>(row_weights_[units + unit]);
  }
  std::array<size_t, kNumExpertMatrices + 1> first = {};        // sampled rows before each matrix
  std::array<size_t, kNumExpertMatrices + 1> first_group = {};  // groups of them before it
  for (size_t i = 0; i < kNumExpertMatrices; ++i) {
    const size_t count = sampled_rows(matrices[i].rows, most_rows_);
    first[i + 1] = first[i] + count;
    first_group[i + 1] = first_group[i] + ceil_div(count, kFeedbackRows);
  }
  row_errors_.resize(first.back() * stride);
  const auto importance_of = [&](size_t matrix) {
    const float* values = matrix == kDown ? importance.hidden : importance.input;
    const size_t columns = matrices[matrix].columns;
    const bool any = std::any_of(values, values + columns, [](float v) { return v > 0.0f; });
    return any ? values : nullptr;
  };
  const std::array<const float*, kNumExpertMatrices> column_importance = {
      importance_of(kGate), importance_of(kUp), importance_of(kDown)};
  std::atomic<bool> finite{true};
  pool.parallel_for(first_group.back(), [&](size_t item, size_t worker) {
    size_t matrix = 0;
    while (item >= first_group[matrix + 1]) ++matrix;
    Rows rows;
    rows.matrix = &matrices[matrix];
    rows.num_samples = first[matrix + 1] - first[matrix];
    rows.first = (item - first_group[matrix]) * kFeedbackRows;
    rows.count = std::min(kFeedbackRows, rows.num_samples - rows.first);
    rows.importance = column_importance[matrix];
    rows.covariance = matrix == kDown ? &importance.hidden_factor : &importance.input_factor;
    rows.errors = row_errors_.data() + (first[matrix] + rows.first) * stride;
    if (!measure_rows(rows, scratch_of(worker))) finite.store(false, std::memory_order_relaxed);
  });
  for (size_t i = 0; i < kNumExpertMatrices; ++i) {
    const double* row_weight = i == kDown ? nullptr : row_weights_.data() + i * units;
    const double divisor =
        i == kDown || importance.weight_squared <= 0.0 ? 1.0 : importance.weight_squared;
    // Without importance an error is of the weights alone; nothing uses them.
    const double factor = column_importance[i] == nullptr ? 0.0 : 1.0 / divisor;
    for (size_t candidate = 0; candidate < stride; ++candidate) {
      const double* errors = row_errors_.data() + first[i] * stride + candidate;
      const double sum = total(matrices[i], row_weight, errors, stride);
      const QuantType type = candidates_[candidate];
      const bool possible = type == matrices[i].type || fits(type, matrices[i].columns);
      places.errors[i * stride + candidate] =
          possible ? sum * factor : std::numeric_limits<double>::infinity();
    }
  }
  return finite.load();
}

}  // namespace edgemoe
