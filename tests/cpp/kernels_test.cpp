// What the kernels compute, on the highest level of this CPU (check_*kernels_test.cpp show that all
// levels agree). References are in float64; tolerances follow from the number of roundings.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/half.h"
#include "kernels/dispatch.h"
#include "quant/layout.h"
#include "quant/unpack.h"
#include "test.h"

namespace edgemoe {
namespace {

using kernels::KernelTable;
using kernels::KvType;
using Random = std::mt19937;

constexpr double kEpsilon = 0x1p-24;  // of one rounding to float32
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const KernelTable& table() {
  return *kernels::available_tables().back();
}

std::vector<float> normal_floats(size_t count, uint32_t seed) {
  Random random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

void check_near(const char* what, double value, double expected, double tolerance) {
  if (std::fabs(value - expected) <= tolerance) return;
  std::ostringstream message;
  message << what << ": " << value << " is not within " << tolerance << " of " << expected;
  test::report_failure(__FILE__, __LINE__, message.str());
}

// One row of rounded activations.
struct RoundedRow {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int16_t> sums;
  Activations view;

  RoundedRow(const std::vector<float>& x, ActivationEncoding encoding,
             const KernelTable& level = table())
      : codes(x.size()), scales(x.size() / activation_block(encoding)), sums(x.size() / kSumBlock) {
    const auto quantize = encoding == ActivationEncoding::kQ8Block32 ? level.quantize_block32
                                                                     : level.quantize_block256;
    quantize(x.data(), x.size(), codes.data(), scales.data(), sums.data());
    view = {encoding, x.size(), x.size(), nullptr, codes.data(), scales.data(), sums.data()};
  }
  double value(size_t i) const {
    return static_cast<double>(scales[i / activation_block(view.encoding)]) * codes[i];
  }
};

// A row of weights whose scales are finite and not huge.
std::vector<std::byte> random_row(QuantType type, size_t columns, uint32_t seed) {
  Random random(seed);
  std::vector<std::byte> row(row_bytes(type, columns));
  const size_t block_bytes = traits(type).block_bytes;
  std::vector<float> values(traits(type).block_elements);
  for (std::byte* block = row.data(); block != row.data() + row.size(); block += block_bytes) {
    bool tame = false;
    while (!tame) {
      for (size_t i = 0; i < block_bytes; ++i) block[i] = static_cast<std::byte>(random());
      dequantize(type, block, values.size(), values.data());
      tame = std::all_of(values.begin(), values.end(),
                         [](float value) { return std::fabs(value) < 0x1p40f; });
    }
  }
  return row;
}

struct Sum {
  double value = 0;
  double magnitude = 0;  // sum of the magnitudes of all terms
};

// Exact but for float64, from the definition in unpack.h.
Sum defined_product(QuantType type, const std::vector<std::byte>& row, const RoundedRow& x) {
  Sum sum;
  const size_t elements = fold_elements(type);
  const size_t folds = traits(type).block_elements / elements;
  for (size_t first = 0; first < x.codes.size(); first += elements) {
    const size_t block = first / traits(type).block_elements;
    UnpackedFold fold{};
    unpack_function(type)(row.data() + block * traits(type).block_bytes, first / elements % folds,
                          fold);
    for (size_t i = 0; i < elements; ++i) {
      const size_t s = i / kSubBlock;
      const double product = static_cast<double>(fold.d) * fold.scale[s] * fold.code[i];
      const double offset = has_min(type) ? static_cast<double>(fold.dmin) * fold.min[s] : 0.0;
      const double activation = x.value(first + i);
      sum.value += (product - offset) * activation;
      sum.magnitude += (std::fabs(product) + std::fabs(offset)) * std::fabs(activation);
    }
  }
  return sum;
}

std::string level_error(const char* level) {
  ::setenv("EDGEMOE_LEVEL", level, 1);
  const std::string message = ERROR_MESSAGE(ErrorCode::kArgument, kernels::select_table());
  ::unsetenv("EDGEMOE_LEVEL");
  return message;
}

double exact_logistic(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

}  // namespace

TEST("the scalar level is always available and levels can be chosen by name") {
  CHECK_EQUAL(std::string(kernels::available_tables().front()->level), "scalar");
  for (const KernelTable* level : kernels::available_tables()) {
    CHECK(&kernels::table_by_name(level->level) == level);
    ::setenv("EDGEMOE_LEVEL", level->level, 1);
    CHECK(&kernels::select_table() == level);
    CHECK_EQUAL(kernels::chosen_tables().size(), size_t{1});
    CHECK(kernels::chosen_tables().front() == level);
    ::unsetenv("EDGEMOE_LEVEL");
  }
  CHECK(&kernels::select_table() == kernels::available_tables().back());
  CHECK_EQUAL(kernels::chosen_tables().size(), kernels::available_tables().size());
}

TEST("an unknown level is refused with the list of levels") {
  const std::string message = level_error("sse9");
  CHECK(message.find("'sse9'") != std::string::npos);
  CHECK(message.find("scalar") != std::string::npos);
  CHECK(message.find("EDGEMOE_LEVEL") != std::string::npos);
}

TEST("every level has every entry") {
  for (const KernelTable* level : kernels::available_tables()) {
    for (const kernels::MatmulFn matmul : level->matmul) CHECK(matmul != nullptr);
    CHECK(level->quantize_block32 != nullptr && level->quantize_block256 != nullptr);
    CHECK(level->attend != nullptr && level->store_kv != nullptr && level->rotate != nullptr);
  }
}

TEST("a peak counts the products of its rounds at every level that multiplies codes itself") {
  for (const KernelTable* level : kernels::available_tables()) {
    const bool is_scalar = std::string(level->level) == "scalar";
    CHECK_EQUAL(level->multiply_peak == nullptr, is_scalar);
    if (is_scalar) continue;
    CHECK_EQUAL(level->multiply_peak(0), uint64_t{0});
    CHECK(level->multiply_peak(1) > 0);
    CHECK_EQUAL(level->multiply_peak(100), 100 * level->multiply_peak(1));
  }
}

TEST("products of quantised types are the defined sums") {
  constexpr size_t kColumns = 1024;
  for (const QuantTraits& quant : all_quant_types()) {
    if (quant.activations == ActivationEncoding::kF32) continue;
    const auto row = random_row(quant.type, kColumns, quant.ggml_id);
    const RoundedRow x(normal_floats(kColumns, 5), quant.activations);
    float out = 0;
    kernels::MatmulArgs args{};
    std::vector<std::byte> packed = row;
    std::vector<std::byte> scratch(regroup_scratch_bytes(quant.type, kColumns));
    regroup(quant.type, packed.data(), 1, kColumns, scratch.data());
    args.weights = packed.data();
    args.rows = args.row_end = args.num_tokens = args.out_stride = 1;
    args.columns = kColumns;
    args.x = x.view;
    args.out = &out;
    table().matmul[static_cast<size_t>(quant.type)](args);
    const Sum expected = defined_product(quant.type, row, x);
    // A fold rounds d * scale, the integer and the sum, twice when there are minima.
    const double roundings = 2.0 + 2.0 * kColumns / static_cast<double>(fold_elements(quant.type));
    check_near(std::string(quant.name).c_str(), out, expected.value,
               roundings * kEpsilon * expected.magnitude * 1.01);
  }
}

TEST("rounding of activations keeps scale, codes and sums as defined") {
  std::vector<float> x(64, 0.0f);
  for (size_t i = 0; i < 32; ++i) x[i] = static_cast<float>(i) - 10.5f;  // amax 20.5
  x[5] = 127.0f;
  const RoundedRow row(x, ActivationEncoding::kQ8Block32);
  CHECK_EQUAL(row.scales[0], 1.0f);
  CHECK_EQUAL(int{row.codes[0]}, -10);  // -10.5 is a tie: to even
  CHECK_EQUAL(int{row.codes[1]}, -10);  // -9.5 too
  CHECK_EQUAL(int{row.codes[5]}, 127);
  CHECK_EQUAL(row.scales[1], 0.0f);
  for (size_t block = 0; block < row.sums.size(); ++block) {
    int sum = 0;
    for (size_t i = 0; i < kSumBlock; ++i) sum += row.codes[block * kSumBlock + i];
    CHECK_EQUAL(int{row.sums[block]}, sum);
  }
}

TEST("rounding of numbers that are not finite gives codes within the range at every level") {
  std::vector<float> x = normal_floats(256, 9);
  x[3] = kInfinity;
  x[40] = -kInfinity;
  x[77] = std::numeric_limits<float>::quiet_NaN();
  for (const auto encoding : {ActivationEncoding::kQ8Block32, ActivationEncoding::kQ8Block256}) {
    for (const KernelTable* level : kernels::available_tables()) {
      const RoundedRow row(x, encoding, *level);
      CHECK(*std::min_element(row.codes.begin(), row.codes.end()) >= -127);
    }
  }
}

TEST("softmax sums to one, keeps order and gives nothing to excluded entries") {
  std::vector<float> x = normal_floats(100, 1);
  x[50] = -kInfinity;
  const std::vector<float> scores = x;
  table().softmax(x.data(), x.size());
  double total = 0;
  for (const float score : scores) total += std::exp(static_cast<double>(score));
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(static_cast<double>(scores[i])) / total;
    // The difference of scores (of magnitude < 8) is rounded before exp; then exp, sum, division.
    check_near("softmax", x[i], expected, expected * (8 + 4 + 8) * kEpsilon);
  }
  CHECK_EQUAL(x[50], 0.0f);
}

TEST("activations are accurate over the whole range") {
  std::vector<float> gate;
  for (float g = -110.0f; g < 110.0f; g += 0.037f) gate.push_back(g);
  const std::vector<float> up(gate.size(), 1.0f);
  std::vector<float> silu(gate.size());
  std::vector<float> gelu(gate.size());
  table().gated_activation(kernels::Activation::kSilu, gate.data(), up.data(), gate.size(), 0,
                           silu.data());
  table().gated_activation(kernels::Activation::kGelu, gate.data(), up.data(), gate.size(), 0,
                           gelu.data());
  constexpr double kSmallest = 0x1p-121;  // below, exp(-g) overflows and the result is 0
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i];
    const double expected_silu = g * exact_logistic(g);
    check_near("silu", silu[i], expected_silu, std::fabs(expected_silu) * 8 * kEpsilon + kSmallest);
    const double u = std::sqrt(2.0 / M_PI) * g * (1.0 + 0.044715 * g * g);
    const double expected_gelu = g * exact_logistic(2.0 * u);
    // The rounding of u (4 operations) is multiplied by the slope of exp, which is |2 u|.
    check_near("gelu", gelu[i], expected_gelu,
               std::fabs(expected_gelu) * (8 + 4 * std::fabs(2 * u)) * kEpsilon + kSmallest);
  }
}

TEST("softcap is accurate near zero and keeps the sign at the ends") {
  std::vector<float> x;
  for (float value = -200.0f; value < 200.0f; value += 0.11f) x.push_back(value);
  const std::vector<float> before = x;
  table().softcap(30.0f, x.size(), x.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = 30.0 * std::tanh(static_cast<double>(before[i]) / 30.0);
    check_near("softcap", x[i], expected, std::fabs(expected) * 8 * kEpsilon);
  }
}

TEST("rms_norm scales to unit mean square") {
  const std::vector<float> x = normal_floats(300, 2);
  const std::vector<float> weight = normal_floats(300, 3);
  std::vector<float> out(300);
  table().rms_norm(x.data(), weight.data(), nullptr, x.size(), 1e-6f, out.data());
  double squares = 0;
  for (const float value : x) squares += static_cast<double>(value) * value;
  const double factor = 1.0 / std::sqrt(squares / 300.0 + 1e-6);
  // Lanes of 19 terms and 4 levels of addition, halved by the root; then 5 operations.
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = x[i] * factor * weight[i];
    check_near("rms_norm", out[i], expected, std::fabs(expected) * (12 + 5) * kEpsilon);
  }
}

TEST("a rotation by a quarter turn exchanges the pair") {
  const float cos[] = {0.0f, 1.0f};
  const float sin[] = {1.0f, 0.0f};
  float halves[] = {1.0f, 2.0f, 3.0f, 4.0f};
  table().rotate(halves, 2, cos, sin, false);
  CHECK(halves[0] == -3.0f && halves[1] == 2.0f && halves[2] == 1.0f && halves[3] == 4.0f);
  float neighbours[] = {1.0f, 2.0f, 3.0f, 4.0f};
  table().rotate(neighbours, 2, cos, sin, true);
  CHECK(neighbours[0] == -2.0f && neighbours[1] == 1.0f && neighbours[2] == 3.0f);
}

namespace {

// Attention over float rows, in float64.
std::vector<double> exact_attention(const kernels::AttendArgs& args) {
  const kernels::AttendQuery& query = args.queries[0];
  const float* keys = reinterpret_cast<const float*>(args.keys);
  const float* values = reinterpret_cast<const float*>(args.values);
  std::vector<double> out(args.value_size, 0.0);
  double total = query.sink == nullptr ? 0.0 : std::exp(static_cast<double>(*query.sink));
  for (size_t p = query.begin; p < query.end; ++p) {
    double score = 0;
    for (size_t i = 0; i < args.key_size; ++i) {
      score += static_cast<double>(query.query[i]) * keys[p * args.key_size + i];
    }
    const double bias = query.bias == nullptr ? 0.0 : static_cast<double>(query.bias[p]);
    const double weight = std::exp(score * args.scale + bias);
    total += weight;
    for (size_t i = 0; i < args.value_size; ++i) out[i] += weight * values[p * args.value_size + i];
  }
  for (double& value : out) value /= total;
  return out;
}

}  // namespace

TEST("attention is the softmax of the scores times the values") {
  constexpr size_t kKey = 48;
  constexpr size_t kValue = 40;
  const std::vector<float> query = normal_floats(kKey, 1);
  const std::vector<float> keys = normal_floats(kKey * 150, 2);
  const std::vector<float> values = normal_floats(kValue * 150, 3);
  const std::vector<float> bias = normal_floats(150, 4);
  const float sink = 1.5f;
  for (int kind = 0; kind < 4; ++kind) {
    std::vector<float> out(kValue);
    kernels::AttendArgs args{};
    const kernels::AttendQuery one{query.data(),
                                   out.data(),
                                   kind % 2 == 0 ? nullptr : &sink,
                                   9,
                                   150,
                                   kind < 2 ? nullptr : bias.data()};
    args.queries = &one;
    args.num_queries = 1;
    args.keys = reinterpret_cast<const std::byte*>(keys.data());
    args.values = reinterpret_cast<const std::byte*>(values.data());
    args.key_stride = args.key_size = kKey;
    args.key_stride *= sizeof(float);
    args.value_stride = args.value_size = kValue;
    args.value_stride *= sizeof(float);
    args.scale = 0.144f;
    args.type = KvType::kF32;
    table().attend(args);
    const std::vector<double> expected = exact_attention(args);
    // A weight is off by the error of its score: magnitudes below 8, 48 / 16 + 5 roundings; a sum
    // of 141 positions adds one rounding each, in weights that sum to at most 1 and values below 5.
    for (size_t i = 0; i < kValue; ++i) {
      check_near("attend", out[i], expected[i], (2 * 8 * 8 + 141) * 5 * kEpsilon);
    }
  }
}

TEST("attention over nothing, or over a sink alone, is zero") {
  float out[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  const float query[4] = {};
  const float sink = 0.5f;
  for (const float* sink_or_none : {static_cast<const float*>(nullptr), &sink}) {
    kernels::AttendArgs args{};
    const kernels::AttendQuery one{query, out, sink_or_none, 7, 7};
    args.queries = &one;
    args.num_queries = 1;
    args.key_size = args.value_size = 4;
    args.type = KvType::kF32;
    table().attend(args);
    for (const float value : out) CHECK_EQUAL(value, 0.0f);
  }
}

TEST("rows of the cache are rounded to nearest") {
  const std::vector<float> x = normal_floats(64, 8);
  std::vector<uint16_t> halves(64);
  table().store_kv(KvType::kF16, x.data(), 64, reinterpret_cast<std::byte*>(halves.data()));
  for (size_t i = 0; i < 64; ++i) CHECK_EQUAL(halves[i], float_to_half(x[i]));
  std::vector<std::byte> blocks(68);
  std::vector<float> read(64);
  table().store_kv(KvType::kQ8_0, x.data(), 64, blocks.data());
  dequantize(QuantType::kQ8_0, blocks.data(), 64, read.data());
  for (size_t i = 0; i < 64; ++i) {
    uint16_t scale;
    std::memcpy(&scale, blocks.data() + i / 32 * 34, sizeof(scale));
    // Half a step, and the ends, where the stored scale may be a little small.
    check_near("Q8_0 row", read[i], x[i], half_to_float(scale) * (0.5 + 127 * 0x1p-11 + 0.001));
  }
}

}  // namespace edgemoe
