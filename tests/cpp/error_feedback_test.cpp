// Error feedback: what it does to e H e^T, and that its bytes are the same on every machine.
#include "quant/error_feedback.h"

#include <cmath>
#include <random>
#include <vector>

#include "base/fast_hash.h"
#include "quant/code_bits.h"
#include "quant/quantize.h"
#include "quant/unpack.h"
#include "test.h"

namespace edgemoe {
namespace {

constexpr size_t kColumns = 512;
constexpr size_t kRows = 16;

std::vector<QuantType> feedback_types() {
  std::vector<QuantType> types;
  for (const QuantTraits& one : all_quant_types()) {
    if (can_feed_back(one.type)) types.push_back(one.type);
  }
  return types;
}

// H[i][j] = link^|i - j|: (I + U) D (I + U)^T with U[i][j] = link^(j - i). `sign` other than 1
// breaks that: then errors grow from column to column.
struct Covariance {
  std::vector<float> upper = std::vector<float>(kColumns * kColumns);
  std::vector<float> pivots = std::vector<float>(kColumns);
  std::vector<float> diagonal = std::vector<float>(kColumns);

  explicit Covariance(float link, float sign = 1.0f) {
    for (size_t c = 0; c < kColumns; ++c) {
      float factor = link;
      for (size_t next = c + 1; next < kColumns; ++next, factor *= link) {
        upper[c * kColumns + next] = (next - c) % 3 == 0 ? sign * factor : factor;
      }
      pivots[c] = c + 1 < kColumns ? 1.0f - link * link : 1.0f;
    }
    for (size_t c = 0; c < kColumns; ++c) {
      diagonal[c] = pivots[c];
      for (size_t p = c + 1; p < kColumns; ++p) {
        diagonal[c] += upper[c * kColumns + p] * upper[c * kColumns + p] * pivots[p];
      }
    }
  }
  FeedbackFactor factor() const { return {upper.data(), nullptr, pivots.data()}; }
};

std::vector<float> weights(unsigned seed) {
  // Sums of uniform numbers: the same on every machine.
  std::mt19937 random(seed);
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) {
    value = 0.0f;
    for (int i = 0; i < 6; ++i) value += static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f;
  }
  return values;
}

std::vector<std::byte> with_feedback(QuantType type, const FeedbackRows& rows,
                                     const FeedbackFactor& factor) {
  std::vector<std::byte> out(rows.rows * row_bytes(type, rows.columns));
  std::vector<float> scratch(feedback_scratch_bytes(rows.columns) / sizeof(float) + 1);
  quantize_with_feedback(type, rows, factor, out.data(),
                         reinterpret_cast<std::byte*>(scratch.data()));
  return out;
}

double error_of(QuantType type, const FeedbackRows& rows, const Covariance& covariance,
                const std::vector<std::byte>& bytes) {
  std::vector<float> values(rows.rows * rows.columns);
  for (size_t row = 0; row < rows.rows; ++row) {
    dequantize(type, bytes.data() + row * row_bytes(type, rows.columns), rows.columns,
               values.data() + row * rows.columns);
  }
  std::vector<float> scratch(feedback_scratch_bytes(rows.columns) / sizeof(float) + 1);
  std::vector<double> errors(rows.rows);
  measure_feedback_errors(rows, values.data(), covariance.factor(), covariance.pivots.data(),
                          errors.data(), reinterpret_cast<std::byte*>(scratch.data()));
  double total = 0.0;
  for (const double one : errors) total += one;
  return total;
}

std::vector<std::byte> without_feedback(QuantType type, const FeedbackRows& rows) {
  std::vector<std::byte> out(rows.rows * row_bytes(type, rows.columns));
  for (size_t row = 0; row < rows.rows; ++row) {
    quantize_row(type, rows.weights + row * rows.columns, rows.columns, rows.importance,
                 out.data() + row * row_bytes(type, rows.columns));
  }
  return out;
}

TEST("feedback errors equal the quadratic form") {
  const Covariance covariance(0.5f);
  const std::vector<float> values = weights(3);
  const std::vector<float> zeros(values.size());
  std::vector<double> errors(kRows);
  std::vector<float> scratch(feedback_scratch_bytes(kColumns) / sizeof(float) + 1);
  measure_feedback_errors({values.data(), kRows, kColumns}, zeros.data(), covariance.factor(),
                          covariance.pivots.data(), errors.data(),
                          reinterpret_cast<std::byte*>(scratch.data()));
  for (size_t row = 0; row < kRows; ++row) {
    double expected = 0.0;
    for (size_t c = 0; c < kColumns; ++c) {
      double left = values[row * kColumns + c];
      for (size_t p = 0; p < c; ++p) {
        left += double{values[row * kColumns + p]} * double{covariance.upper[p * kColumns + c]};
      }
      expected += double{covariance.pivots[c]} * left * left;
    }
    // Sums of some 500 float products of either sign.
    CHECK(std::abs(errors[row] - expected) < 1e-4 * expected);
  }
}

TEST("feedback lowers the error of correlated columns for every type") {
  const Covariance covariance(0.9f);
  const std::vector<float> values = weights(5);
  const FeedbackRows rows{values.data(), kRows, kColumns, covariance.diagonal.data()};
  for (const QuantType type : feedback_types()) {
    const double with =
        error_of(type, rows, covariance, with_feedback(type, rows, covariance.factor()));
    const double without = error_of(type, rows, covariance, without_feedback(type, rows));
    // Grids choose neighbours together, which here are what is linked most.
    const bool one_by_one = store_codes_function(type) != nullptr;
    CHECK(with <= (one_by_one ? 0.8 : 1.0) * without);
  }
}

TEST("feedback of independent columns is no worse than rounding") {
  const Covariance covariance(0.0f);
  const std::vector<float> values = weights(6);
  const FeedbackRows rows{values.data(), kRows, kColumns, covariance.diagonal.data()};
  for (const QuantType type : feedback_types()) {
    const double with =
        error_of(type, rows, covariance, with_feedback(type, rows, covariance.factor()));
    const double without = error_of(type, rows, covariance, without_feedback(type, rows));
    CHECK(with < 1.001 * without);
  }
}

TEST("feedback that runs away is left") {
  // Links so strong that what a column leaves grows on its way.
  const Covariance covariance(0.8f, -1.0f);
  const std::vector<float> values = weights(10);
  const FeedbackRows rows{values.data(), kRows, kColumns, covariance.diagonal.data()};
  for (const QuantType type : feedback_types()) {
    const double with =
        error_of(type, rows, covariance, with_feedback(type, rows, covariance.factor()));
    const double without = error_of(type, rows, covariance, without_feedback(type, rows));
    CHECK(with <= 1.5 * without);
  }
}

TEST("feedback rows do not depend on their company") {
  const Covariance covariance(0.5f);
  const std::vector<float> values = weights(7);
  for (const QuantType type : {QuantType::kQ4_K, QuantType::kIQ2_XS, QuantType::kQ8_0}) {
    const auto all =
        with_feedback(type, {values.data(), kRows, kColumns, nullptr}, covariance.factor());
    for (const size_t row : {size_t{0}, size_t{9}}) {
      const auto alone = with_feedback(type, {values.data() + row * kColumns, 1, kColumns, nullptr},
                                       covariance.factor());
      CHECK(std::equal(alone.begin(), alone.end(),
                       all.begin() + static_cast<ptrdiff_t>(row * alone.size())));
    }
  }
}

TEST("feedback takes rows that end within a unit") {
  // 288 columns: a unit of 256 and a block of 32.
  const Covariance covariance(0.5f);
  std::vector<float> upper(288 * 288);
  for (size_t c = 0; c < 288; ++c) {
    for (size_t next = c + 1; next < 288; ++next) {
      upper[c * 288 + next] = covariance.upper[c * kColumns + next];
    }
  }
  const std::vector<float> values = weights(8);
  for (const QuantType type : {QuantType::kQ4_0, QuantType::kIQ4_NL, QuantType::kMXFP4}) {
    const auto bytes = with_feedback(type, {values.data(), 3, 288, nullptr}, {upper.data()});
    std::vector<float> back(288);
    dequantize(type, bytes.data(), 288, back.data());
    double error = 0.0;
    double power = 0.0;
    for (size_t c = 0; c < 288; ++c) {
      error += std::pow(double{back[c]} - double{values[c]}, 2);
      power += std::pow(double{values[c]}, 2);
    }
    CHECK(error < 0.1 * power);
  }
}

TEST("feedback scale gives the covariance an expert's importance") {
  const std::vector<float> diagonal = {1.0f, 4.0f, 0.0f, 2.0f};
  const std::vector<float> importance = {4.0f, 1.0f, 1.0f, 0.0f};
  std::vector<float> scale(4);
  scale_to_importance(diagonal.data(), importance.data(), 4, scale.data());
  CHECK(scale[0] == 2.0f);
  CHECK(scale[1] == 0.5f);
  for (const float one : scale) CHECK(std::isfinite(one) && one > 0.0f);
}

TEST("feedback bytes are the same on every machine") {
  const Covariance covariance(0.5f);
  const std::vector<float> values = weights(9);
  FastHash hash;
  for (const QuantType type : feedback_types()) {
    hash.add(with_feedback(type, {values.data(), kRows, kColumns, covariance.diagonal.data()},
                           covariance.factor()));
  }
  CHECK_EQUAL(hash.value(), uint64_t{16817889818950384636u});
}

}  // namespace
}  // namespace edgemoe
