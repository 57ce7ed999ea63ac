#include "quant/error_feedback.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quant/code_bits.h"
#include "quant/quantize.h"
#include "quant/quantize_levels.h"
#include "quant/unpack.h"

namespace edgemoe {
namespace {

static_assert(kFeedbackRows == kFeedbackLanes && kSubBlockColumns == kSubBlock);

constexpr size_t kSubBlocks = kUnitElements / kSubBlock;
constexpr size_t kMostEntries = kUnitElements / 4;
constexpr size_t kSignGroups = kUnitElements / 8;

// Everything that one call works in.
struct Scratch {
  float* deltas;           // [columns][rows]
  float* factors;          // [columns]
  float* inverse_factors;  // [columns]
  float* weights;          // [unit][rows]
  float* targets;          // [unit][rows]
  float* codes;            // [unit][rows]
  float* scales;           // [sub-blocks][rows]
  float* minima;           // [sub-blocks][rows]
  float* row;              // [unit]
  float* pivots;           // [unit]
  double* left;            // [rows]: what the terms of the sum came to
  double* usual;           // [rows]: and come to when no code is at its end
  uint16_t* entries;       // [unit / 4][rows]
  uint8_t* signs;          // [unit / 8][rows]

  Scratch(std::byte* bytes, size_t columns) noexcept : deltas(reinterpret_cast<float*>(bytes)) {
    factors = deltas + columns * kFeedbackRows;
    inverse_factors = factors + columns;
    weights = inverse_factors + columns;
    targets = weights + kUnitElements * kFeedbackRows;
    codes = targets + kUnitElements * kFeedbackRows;
    scales = codes + kUnitElements * kFeedbackRows;
    minima = scales + kSubBlocks * kFeedbackRows;
    row = minima + kSubBlocks * kFeedbackRows;
    pivots = row + kUnitElements;
    left = reinterpret_cast<double*>(pivots + kUnitElements);
    usual = left + kFeedbackRows;
    entries = reinterpret_cast<uint16_t*>(usual + kFeedbackRows);
    signs = reinterpret_cast<uint8_t*>(entries + kMostEntries * kFeedbackRows);
  }
};

// About the distance of the values of neighbouring codes.
float code_step(QuantType type) noexcept {
  switch (type) {
    case QuantType::kIQ4_NL:
    case QuantType::kIQ4_XS:
    case QuantType::kIQ2_XXS:
    case QuantType::kIQ2_XS:
    case QuantType::kIQ2_S:
      return 17.0f;
    case QuantType::kIQ3_XXS:
      return 8.0f;
    case QuantType::kIQ3_S:
    case QuantType::kMXFP4:
      return 2.0f;
    default:
      return 1.0f;
  }
}

size_t scratch_floats(size_t columns) noexcept {
  return columns * (kFeedbackRows + 2) + 3 * kUnitElements * kFeedbackRows +
         2 * kSubBlocks * kFeedbackRows + 2 * kUnitElements +
         2 * kFeedbackRows * sizeof(double) / sizeof(float) +
         (kMostEntries * sizeof(uint16_t) + kSignGroups) * kFeedbackRows / sizeof(float);
}

// A call, and the columns of it that are quantised now.
class FeedbackPass {
 public:
  FeedbackPass(QuantType type, const FeedbackRows& rows, const FeedbackFactor& factor,
               std::byte* out, std::byte* scratch) noexcept
      : type_(type), rows_(rows), factor_(factor), out_(out), work_(scratch, rows.columns) {
    for (size_t c = 0; c < rows.columns; ++c) {
      work_.factors[c] = factor.scale == nullptr ? 1.0f : factor.scale[c];
      work_.inverse_factors[c] = 1.0f / work_.factors[c];
    }
    std::fill_n(work_.left, 2 * kFeedbackRows, 0.0);
  }

  void quantize_unit(size_t first) noexcept {
    const size_t count = std::min(kUnitElements, rows_.columns - first);
    set_targets(first, count);
    for (size_t row = 0; row < rows_.rows; ++row) find_scales(row, first, count);
    const FeedbackUnit unit{count,
                            factor_.upper + first * rows_.columns + first,
                            rows_.columns,
                            work_.factors + first,
                            work_.inverse_factors + first,
                            work_.scales,
                            work_.minima,
                            work_.weights,
                            work_.targets,
                            work_.deltas + first * kFeedbackRows,
                            work_.pivots,
                            work_.codes,
                            work_.entries,
                            work_.signs};
    quantizers().feed_back[static_cast<size_t>(type_)](unit);
    for (size_t row = 0; row < rows_.rows; ++row) {
      if (const StoreEntriesFn store = store_entries_function(type_)) {
        store_entries(row, first, store);
      } else {
        store_codes(row, first, count);
      }
    }
    count_terms(first, count);
  }

  // Whether codes came to their ends: what they leave then grows from column to column, and the row
  // may be worse than without feedback.
  bool ran_away(size_t row) const noexcept {
    constexpr double kMost = 2.0;
    return !(work_.left[row] <= kMost * work_.usual[row]);
  }

 private:
  void count_terms(size_t first, size_t count) noexcept {
    const float step = code_step(type_);
    for (size_t c = 0; c < count; ++c) {
      const double weight = pivot(first + c);
      for (size_t row = 0; row < rows_.rows; ++row) {
        const size_t at = c * kFeedbackRows + row;
        const double left = double{work_.targets[at]} - double{work_.weights[at]} +
                            double{work_.deltas[first * kFeedbackRows + at]};
        const double rounding = double{work_.scales[c / kSubBlock * kFeedbackRows + row]} *
                                double{step} * double{work_.factors[first + c]};
        work_.left[row] += weight * left * left;
        work_.usual[row] += weight * rounding * rounding / 12.0;
      }
    }
  }

  void set_targets(size_t first, size_t count) noexcept {
    for (size_t c = 0; c < count; ++c) {
      const float factor = work_.factors[first + c];
      work_.pivots[c] = error_weight(first + c) * factor * factor;
    }
    for (size_t c = 0; c < count; ++c) {
      float* weights = work_.weights + c * kFeedbackRows;
      for (size_t row = 0; row < kFeedbackRows; ++row) {
        const bool there = row < rows_.rows;
        weights[row] =
            there ? rows_.weights[row * rows_.columns + first + c] * work_.factors[first + c]
                  : 0.0f;
      }
    }
    std::copy_n(work_.weights, count * kFeedbackRows, work_.targets);
    quantizers().feed_from_earlier({work_.deltas, factor_.upper + first, rows_.columns, first},
                                   count, work_.targets);
  }

  float pivot(size_t column) const noexcept {
    return factor_.pivots == nullptr ? 1.0f : factor_.pivots[column];
  }

  // What a column's error counts when it is chosen: its pivot, and what columns that are chosen
  // together with it, and so cannot make up for it, get of it.
  float error_weight(size_t column) const noexcept {
    float weight = pivot(column);
    if (store_entries_function(type_) == nullptr) return weight;
    const size_t together = entry_columns(type_);
    const size_t end = column - column % together + together;
    for (size_t c = column + 1; c < end; ++c) {
      const float link = factor_.upper[column * rows_.columns + c];
      weight += link * link * pivot(c);
    }
    return weight;
  }

  std::byte* unit_bytes(size_t row, size_t first) const noexcept {
    return out_ + row * row_bytes(type_, rows_.columns) + row_bytes(type_, first);
  }

  void find_scales(size_t row, size_t first, size_t count) noexcept {
    for (size_t c = 0; c < count; ++c) {
      work_.row[c] = work_.targets[c * kFeedbackRows + row] * work_.inverse_factors[first + c];
    }
    std::byte* block = unit_bytes(row, first);
    // What a column's error costs once the columns after it have made up for it is its pivot.
    const float* importance = factor_.pivots != nullptr ? work_.pivots : nullptr;
    if (importance == nullptr && rows_.importance != nullptr) importance = rows_.importance + first;
    quantize_row(type_, work_.row, count, importance, block);
    const UnpackFn unpack = unpack_function(type_);
    const size_t fold_columns = fold_elements(type_);
    UnpackedFold fold;
    for (size_t at = 0; at < count; at += fold_columns) {
      unpack(block + row_bytes(type_, at), 0, fold);
      for (size_t s = 0; s < fold_columns / kSubBlock; ++s) {
        const size_t to = (at / kSubBlock + s) * kFeedbackRows + row;
        work_.scales[to] = fold.d * static_cast<float>(fold.scale[s]);
        work_.minima[to] = has_min(type_) ? fold.dmin * static_cast<float>(fold.min[s]) : 0.0f;
      }
    }
  }

  void store_codes(size_t row, size_t first, size_t count) noexcept {
    std::array<int8_t, kUnitElements> codes;
    for (size_t c = 0; c < count; ++c) {
      codes[c] = static_cast<int8_t>(work_.codes[c * kFeedbackRows + row]);
    }
    const StoreCodesFn store = store_codes_function(type_);
    std::byte* block = unit_bytes(row, first);
    const size_t block_columns = traits(type_).block_elements;
    for (size_t at = 0; at < count; at += block_columns) {
      store(codes.data() + at, block + row_bytes(type_, at));
    }
  }

  // A unit of these types is one block.
  void store_entries(size_t row, size_t first, StoreEntriesFn store) noexcept {
    std::array<uint16_t, kMostEntries> entries{};
    std::array<uint8_t, kSignGroups> signs;
    const size_t num_entries = kUnitElements / entry_columns(type_);
    for (size_t i = 0; i < num_entries; ++i) entries[i] = work_.entries[i * kFeedbackRows + row];
    for (size_t i = 0; i < kSignGroups; ++i) signs[i] = work_.signs[i * kFeedbackRows + row];
    store(entries.data(), signs.data(), unit_bytes(row, first));
  }

  QuantType type_;
  const FeedbackRows& rows_;
  const FeedbackFactor& factor_;
  std::byte* out_;
  Scratch work_;
};

// Replaces the row by the one without feedback if that has the lesser error.
void take_better(QuantType type, const FeedbackRows& rows, size_t row, const FeedbackFactor& factor,
                 std::byte* out, std::byte* scratch) noexcept {
  const size_t columns = rows.columns;
  const uint64_t bytes = row_bytes(type, columns);
  const FeedbackRows one{rows.weights + row * columns, 1, columns, rows.importance};
  auto* floats = reinterpret_cast<float*>(scratch) + scratch_floats(columns);
  auto* plain = reinterpret_cast<std::byte*>(floats + columns);
  const auto error_of = [&](const std::byte* quantised) {
    dequantize(type, quantised, columns, floats);
    double error = 0.0;
    measure_feedback_errors(one, floats, factor, factor.pivots, &error, scratch);
    return error;
  };
  quantize_row(type, one.weights, columns, rows.importance, plain);
  std::byte* fed = out + row * bytes;
  if (!(error_of(fed) <= error_of(plain))) std::copy_n(plain, bytes, fed);
}

}  // namespace

bool can_feed_back(QuantType type) noexcept {
  return store_codes_function(type) != nullptr || store_entries_function(type) != nullptr;
}

size_t feedback_scratch_bytes(size_t columns) noexcept {
  // A row as floats and its bytes, of which Q8_0 has the most.
  return (scratch_floats(columns) + 2 * columns) * sizeof(float);
}

void quantize_with_feedback(QuantType type, const FeedbackRows& rows, const FeedbackFactor& factor,
                            std::byte* out, std::byte* scratch) noexcept {
  uint32_t doubtful = 0;  // rows
  {
    FeedbackPass pass(type, rows, factor, out, scratch);
    for (size_t first = 0; first < rows.columns; first += kUnitElements) pass.quantize_unit(first);
    for (size_t row = 0; row < rows.rows; ++row) doubtful |= uint32_t{pass.ran_away(row)} << row;
  }
  for (size_t row = 0; row < rows.rows; ++row) {
    if ((doubtful >> row & 1) != 0) take_better(type, rows, row, factor, out, scratch);
  }
}

void measure_feedback_errors(const FeedbackRows& rows, const float* quantised,
                             const FeedbackFactor& factor, const float* pivots, double* errors,
                             std::byte* scratch) noexcept {
  const size_t columns = rows.columns;
  const Scratch work(scratch, columns);
  for (size_t c = 0; c < columns; ++c) {
    const float scale = factor.scale == nullptr ? 1.0f : factor.scale[c];
    for (size_t row = 0; row < kFeedbackRows; ++row) {
      const size_t at = row * columns + c;
      work.deltas[c * kFeedbackRows + row] =
          row < rows.rows ? (rows.weights[at] - quantised[at]) * scale : 0.0f;
    }
  }
  std::fill_n(errors, rows.rows, 0.0);
  for (size_t first = 0; first < columns; first += kUnitElements) {
    const size_t count = std::min(kUnitElements, columns - first);
    std::copy_n(work.deltas + first * kFeedbackRows, count * kFeedbackRows, work.targets);
    // All columns up to the unit's last one: U has zeros where there is no feedback.
    quantizers().feed_from_earlier({work.deltas, factor.upper + first, columns, first + count},
                                   count, work.targets);
    for (size_t c = 0; c < count; ++c) {
      for (size_t row = 0; row < rows.rows; ++row) {
        const double left = work.targets[c * kFeedbackRows + row];
        errors[row] += (pivots == nullptr ? 1.0 : double{pivots[first + c]}) * (left * left);
      }
    }
  }
}

void scale_to_importance(const float* diagonal, const float* importance, size_t columns,
                         float* scale) noexcept {
  constexpr double kLeast = 1e-6;  // of the mean: scales are divided by
  double mean = 0.0;
  for (size_t c = 0; c < columns; ++c) mean += double{importance[c]};
  const double least = std::max(kLeast * mean / static_cast<double>(columns), 1e-30);
  for (size_t c = 0; c < columns; ++c) {
    const double wanted = std::max(double{importance[c]}, least);
    scale[c] = static_cast<float>(std::sqrt(wanted / std::max(double{diagonal[c]}, 1e-30)));
  }
}

}  // namespace edgemoe
