#include "bitwidth/quantization_error.h"

#include <cmath>
#include <cstring>
#include <random>

#include "bitwidth/matrix_rows.h"
#include "quant/layout.h"
#include "quant/quantize.h"
#include "quant/unpack.h"
#include "test.h"

namespace edgemoe {
namespace {

constexpr size_t kWidth = 96;  // holds no block of 256
constexpr size_t kUnits = 256;

std::vector<float> random_floats(size_t count, uint32_t seed, bool positive = false) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = positive ? std::abs(normal(random)) + 0.01f : normal(random);
  return values;
}

struct Expert {
  std::vector<float> gate = random_floats(kUnits * kWidth, 1);
  std::vector<float> up = random_floats(kUnits * kWidth, 2);
  std::vector<float> down = random_floats(kWidth * kUnits, 3);
  std::vector<float> input = random_floats(kWidth, 4, true);
  std::vector<float> hidden = random_floats(kUnits, 5, true);
  std::vector<float> gate_slope = random_floats(kUnits, 6, true);
  std::vector<float> up_slope = random_floats(kUnits, 7, true);

  ExpertMatrices matrices() const {
    const auto view = [](const std::vector<float>& data, size_t rows, size_t columns) {
      return MatrixView{reinterpret_cast<const std::byte*>(data.data()), QuantType::kF32, rows,
                        columns};
    };
    return {view(gate, kUnits, kWidth), view(up, kUnits, kWidth), view(down, kWidth, kUnits)};
  }
  ExpertImportance importance() const {
    return {input.data(), hidden.data(), gate_slope.data(), up_slope.data(), 3.5, {}, {}};
  }
  double down_norm(size_t unit) const {
    double sum = 0.0;
    for (size_t row = 0; row < kWidth; ++row) sum += std::pow(double{down[row * kUnits + unit]}, 2);
    return sum;
  }
};

struct Result {
  std::vector<double> errors;
  std::vector<float> gate_row_weight = std::vector<float>(kUnits);
  std::vector<float> up_row_weight = std::vector<float>(kUnits);
};

Result measure(const Expert& expert, const std::vector<QuantType>& types, size_t rows,
               size_t threads, bool* finite = nullptr) {
  ThreadPool pool(threads);
  QuantizationError meter(types, rows, kUnits, threads);
  Result result;
  result.errors.resize(kNumExpertMatrices * types.size());
  const bool ok = meter.measure(
      pool, expert.matrices(), expert.importance(),
      {result.errors.data(), result.gate_row_weight.data(), result.up_row_weight.data()});
  if (finite != nullptr) *finite = ok;
  return result;
}

// sum over columns of importance * error^2 of one row
double row_error(QuantType type, const float* row, const std::vector<float>& importance) {
  std::vector<std::byte> bytes(row_bytes(type, importance.size()));
  std::vector<float> back(importance.size());
  quantize_row(type, row, importance.size(), importance.data(), bytes.data());
  dequantize(type, bytes.data(), importance.size(), back.data());
  double sum = 0.0;
  for (size_t i = 0; i < back.size(); ++i) {
    sum += double{importance[i]} * std::pow(double{back[i]} - double{row[i]}, 2);
  }
  return sum;
}

bool near(double found, double expected, double tolerance = 1e-9) {
  return std::abs(found - expected) <= tolerance * std::abs(expected);
}

TEST("errors are the weighted squared differences of the formulas") {
  const Expert expert;
  const Result result = measure(expert, {QuantType::kQ8_0, QuantType::kQ4_0}, 0, 2);
  double gate = 0.0;
  double up = 0.0;
  double down = 0.0;
  for (size_t unit = 0; unit < kUnits; ++unit) {
    const double norm = expert.down_norm(unit);
    CHECK(near(result.gate_row_weight[unit], norm * expert.gate_slope[unit], 1e-6));
    CHECK(near(result.up_row_weight[unit], norm * expert.up_slope[unit], 1e-6));
    gate += norm * expert.gate_slope[unit] *
            row_error(QuantType::kQ4_0, &expert.gate[unit * kWidth], expert.input) / 3.5;
    up += norm * expert.up_slope[unit] *
          row_error(QuantType::kQ4_0, &expert.up[unit * kWidth], expert.input) / 3.5;
  }
  for (size_t row = 0; row < kWidth; ++row) {
    down += row_error(QuantType::kQ4_0, &expert.down[row * kUnits], expert.hidden);
  }
  CHECK(near(result.errors[1], gate));
  CHECK(near(result.errors[3], up));
  CHECK(near(result.errors[5], down));
  for (size_t matrix = 0; matrix < 3; ++matrix) {
    CHECK(result.errors[2 * matrix] < result.errors[2 * matrix + 1] / 50);
  }
}

TEST("threads change no bit; some rows come near all") {
  const Expert expert;
  const std::vector<QuantType> types = {QuantType::kQ4_0, QuantType::kQ8_0};
  const Result one = measure(expert, types, 0, 1);
  CHECK(measure(expert, types, 0, 3).errors == one.errors);
  const Result sampled = measure(expert, types, 32, 3);
  CHECK(sampled.gate_row_weight == one.gate_row_weight);
  CHECK(measure(expert, types, 32, 1).errors == sampled.errors);
  for (size_t i = 0; i < one.errors.size(); ++i)
    CHECK(near(sampled.errors[i], one.errors[i], 0.25));
  CHECK(measure(expert, types, kUnits, 1).errors == one.errors);
}

TEST("the own type costs nothing, one that does not fit infinity, and damage is noticed") {
  Expert expert;
  const std::vector<QuantType> types = {QuantType::kF32, QuantType::kQ4_K};
  bool finite = false;
  const Result result = measure(expert, types, 0, 2, &finite);
  CHECK(finite);
  for (size_t matrix = 0; matrix < 3; ++matrix) CHECK_EQUAL(result.errors[2 * matrix], 0.0);
  CHECK(std::isinf(result.errors[1]) && std::isinf(result.errors[3]));
  CHECK(result.errors[5] > 0.0 && std::isfinite(result.errors[5]));  // rows of 256
  expert.up[17] = std::nanf("");
  measure(expert, types, 0, 2, &finite);
  CHECK(!finite);
  const std::vector<QuantType> unknown = {QuantType::kIQ1_S};
  ERROR_MESSAGE(ErrorCode::kArgument, QuantizationError(unknown, 0, 256, 1));
}

TEST("an expert that nothing is known of costs nothing and has no row weights") {
  Expert expert;
  for (auto* values : {&expert.input, &expert.hidden, &expert.gate_slope, &expert.up_slope}) {
    std::fill(values->begin(), values->end(), 0.0f);
  }
  const Result result = measure(expert, {QuantType::kQ4_0}, 0, 1);
  for (const double error : result.errors) CHECK_EQUAL(error, 0.0);
  for (const float weight : result.gate_row_weight) CHECK_EQUAL(weight, 0.0f);
}

TEST("rows are read out of the in-memory layout as they lay in the file") {
  constexpr size_t kRows = 19;  // the last group is not full
  constexpr size_t kColumns = 512;
  const std::vector<float> weights = random_floats(kRows * kColumns, 9);
  for (const QuantType type : {QuantType::kQ4_K, QuantType::kQ8_0, QuantType::kQ4_0,
                               QuantType::kQ6_K, QuantType::kF16, QuantType::kIQ3_S}) {
    const size_t stride = row_bytes(type, kColumns);
    std::vector<std::byte> bytes(kRows * stride);
    std::vector<float> expected(kRows * kColumns);
    for (size_t row = 0; row < kRows; ++row) {
      quantize_row(type, &weights[row * kColumns], kColumns, nullptr, &bytes[row * stride]);
      dequantize(type, &bytes[row * stride], kColumns, &expected[row * kColumns]);
    }
    std::vector<std::byte> scratch(regroup_scratch_bytes(type, kColumns));
    regroup(type, bytes.data(), kRows, kColumns, scratch.data());
    const MatrixView matrix{bytes.data(), type, kRows, kColumns, 0.5f};
    for (size_t row = 0; row < kRows; ++row) {
      std::vector<float> found(256);
      read_row(matrix, row, 256, 256, found.data());
      for (size_t i = 0; i < 256; ++i) {
        CHECK_EQUAL(found[i], 0.5f * expected[row * kColumns + 256 + i]);
      }
    }
  }
}

}  // namespace
}  // namespace edgemoe
