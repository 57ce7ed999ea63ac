// Properties of the quantisers. How good they are is compared with others in
// tests/python/test_quantize.py and bench/compare_quantizers.py.
#include "quant/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "quant/unpack.h"
#include "test.h"

namespace edgemoe {
namespace {

using Row = std::vector<float>;
using Bytes = std::vector<std::byte>;

constexpr size_t kColumns = 1024;

std::vector<QuantType> quantizers() {
  std::vector<QuantType> types;
  for (const QuantTraits& one : all_quant_types()) {
    if (can_quantize(one.type) && one.block_elements > 1) types.push_back(one.type);
  }
  return types;
}

std::string name_of(QuantType type) {
  return std::string(traits(type).name);
}

// The share of a Gaussian's weighted squares that a type may lose, a little above what was
// measured.
double expected_loss(QuantType type) {
  switch (type) {
    case QuantType::kQ8_0:
      return 0.00005;
    case QuantType::kQ6_K:
      return 0.0005;
    case QuantType::kQ5_0:
    case QuantType::kQ5_1:
    case QuantType::kQ5_K:
      return 0.0025;
    case QuantType::kQ3_K:
    case QuantType::kIQ3_S:
      return 0.04;
    case QuantType::kIQ3_XXS:
      return 0.08;
    case QuantType::kQ2_K:
    case QuantType::kIQ2_S:
      return 0.12;
    case QuantType::kIQ2_XS:
    case QuantType::kIQ2_XXS:
      return 0.2;
    default:
      return 0.015;  // 4 bits
  }
}

Row gaussian(size_t count, uint32_t seed, float spread = 1.0f) {
  std::mt19937 random(seed);
  Row row(count);
  for (float& value : row) {
    // A sum of uniform numbers is near enough, and the same with every library.
    float sum = 0.0f;
    for (int i = 0; i < 12; ++i) sum += static_cast<float>(random() >> 8) * 0x1p-24f;
    value = (sum - 6.0f) * spread;
  }
  return row;
}

Row importance_of(size_t count, uint32_t seed) {
  Row row = gaussian(count, seed);
  for (float& value : row) value *= value;
  return row;
}

Bytes quantized(QuantType type, const Row& row, const Row* importance = nullptr) {
  Bytes bytes(row_bytes(type, row.size()));
  quantize_row(type, row.data(), row.size(), importance != nullptr ? importance->data() : nullptr,
               bytes.data());
  return bytes;
}

Row restored(QuantType type, const Bytes& bytes, size_t count) {
  Row row(count);
  dequantize(type, bytes.data(), count, row.data());
  return row;
}

double loss(const Row& row, const Row& found, const Row* importance = nullptr) {
  double lost = 0;
  double all = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double one = importance != nullptr ? double{(*importance)[i]} : 1.0;
    const double difference = double{row[i]} - double{found[i]};
    lost += one * difference * difference;
    all += one * double{row[i]} * double{row[i]};
  }
  return all > 0 ? lost / all : lost;
}

// Reports the type with the failure.
void check_loss(QuantType type, double found, double most, const char* what) {
  if (found <= most) return;
  test::report_failure(__FILE__, __LINE__,
                       name_of(type) + ", " + what + ": loses " + std::to_string(found) +
                           ", expected at most " + std::to_string(most));
}

TEST("every quantiser keeps a row of ordinary weights about as well as its bits allow") {
  const Row row = gaussian(kColumns, 1);
  const Row importance = importance_of(kColumns, 2);
  for (const QuantType type : quantizers()) {
    const double most = expected_loss(type);
    check_loss(type, loss(row, restored(type, quantized(type, row), kColumns)), most, "equal");
    const Row weighted = restored(type, quantized(type, row, &importance), kColumns);
    check_loss(type, loss(row, weighted, &importance), most, "weighted");
  }
}

TEST("importance lowers the error of what matters") {
  const Row row = gaussian(kColumns, 3);
  const Row importance = importance_of(kColumns, 4);
  for (const QuantType type : quantizers()) {
    const double equal = loss(row, restored(type, quantized(type, row), kColumns), &importance);
    const Row weighted = restored(type, quantized(type, row, &importance), kColumns);
    check_loss(type, loss(row, weighted, &importance), equal, "weighted against equal");
  }
}

TEST("a column that alone matters is kept nearly as it is") {
  const Row row = gaussian(kColumns, 5);
  for (const QuantType type : quantizers()) {
    Row importance(kColumns);
    importance[700] = 3.0f;
    const Row found = restored(type, quantized(type, row, &importance), kColumns);
    // Scales of 4 bits and an exponent leave steps.
    const double most = type == QuantType::kMXFP4 ? 0.03 : 0.003;
    check_loss(type, loss(row, found, &importance), most, "one column");
    check_loss(type, loss(row, found), 1.5, "the others");
  }
}

TEST("zeros stay zeros") {
  const Row zeros(kColumns);
  for (const QuantType type : quantizers()) {
    CHECK(restored(type, quantized(type, zeros), kColumns) == zeros);
    Row importance(kColumns);
    CHECK(restored(type, quantized(type, zeros, &importance), kColumns) == zeros);
  }
}

TEST("importance of zeros, of one value, and none at all are the same") {
  const Row row = gaussian(kColumns, 6);
  const Row none(kColumns);
  // Relative importance is a power of two times 1 up to rounding; see RowImportance.
  for (const QuantType type : quantizers()) {
    CHECK(quantized(type, row, &none) == quantized(type, row));
  }
}

TEST("the size of importance does not matter, only its ratios") {
  const Row row = gaussian(kColumns, 7);
  const Row importance = importance_of(kColumns, 8);
  for (const float factor : {0x1p-100f, 0x1p100f}) {
    Row scaled = importance;
    for (float& value : scaled) value *= factor;
    for (const QuantType type : quantizers()) {
      CHECK(quantized(type, row, &scaled) == quantized(type, row, &importance));
    }
  }
}

TEST("rows of one value are kept") {
  for (const float value : {1.0f, -1.0f, 0.3f, -37.25f}) {
    const Row row(kColumns, value);
    for (const QuantType type : quantizers()) {
      const Row found = restored(type, quantized(type, row), kColumns);
      // The 4-bit floats have few scales, and not every value is alone in an entry of a grid.
      const double most = type == QuantType::kMXFP4   ? 0.03
                          : type == QuantType::kIQ3_S ? 0.03
                                                      : 0.004;
      check_loss(type, loss(row, found), most, "constant");
    }
  }
}

TEST("weights of any size lose the same share, until the scales end") {
  const Row row = gaussian(kColumns, 9);
  for (const QuantType type : quantizers()) {
    const double usual = loss(row, restored(type, quantized(type, row), kColumns));
    for (const float factor : {0x1p-4f, 0x1p4f, 0x1p8f}) {
      Row scaled = row;
      for (float& value : scaled) value *= factor;
      const double found = loss(scaled, restored(type, quantized(type, scaled), kColumns));
      // Halves of scales lose bits below 2^-14.
      check_loss(type, found, usual * 1.05 + 1e-6, "scaled");
    }
  }
}

TEST("huge, tiny and denormal weights give finite weights of the right sign") {
  const Row row = gaussian(kColumns, 10);
  constexpr float kMost = std::numeric_limits<float>::max();
  for (const float factor : {kMost / 8.0f, 1e30f, 1e5f, 1e-6f, 1e-20f, 1e-38f, 1e-42f}) {
    Row scaled = row;
    for (float& value : scaled) value *= factor;
    for (const QuantType type : quantizers()) {
      const Row found = restored(type, quantized(type, scaled), kColumns);
      for (size_t i = 0; i < kColumns; ++i) {
        REQUIRE(std::isfinite(found[i]));
        REQUIRE(std::fabs(found[i]) <= std::fabs(factor) * 8.0f + 1e-6f);
      }
      // Clamped or rounded to zero, but never worse than zeros.
      double lost = 0;
      double all = 0;
      for (size_t i = 0; i < kColumns; ++i) {
        const double wanted = double{scaled[i]};
        lost += (wanted - double{found[i]}) * (wanted - double{found[i]});
        all += wanted * wanted;
      }
      check_loss(type, lost, all * 1.0001, "of any size");
    }
  }
}

TEST("one huge weight among small ones is kept") {
  Row row = gaussian(kColumns, 11, 0.01f);
  row[300] = -1000.0f;
  for (const QuantType type : quantizers()) {
    const Row found = restored(type, quantized(type, row), kColumns);
    // Where codes of 2 and 3 bits have no zero the small ones beside it pull the scale down.
    const bool has_zero = !name_of(type).starts_with("IQ2") && !name_of(type).starts_with("IQ3");
    const float most = type == QuantType::kMXFP4 ? 150.0f : has_zero ? 40.0f : 700.0f;
    CHECK(std::fabs(found[300] + 1000.0f) < most);
    CHECK(std::fabs(found[0] - row[0]) < 0.5f);  // another block
  }
}

TEST("what a type can hold exactly comes back as it was, and as the same bytes") {
  for (const QuantType type : quantizers()) {
    const Row found = restored(type, quantized(type, gaussian(kColumns, 12)), kColumns);
    const Row again = restored(type, quantized(type, found), kColumns);
    // A second pass may settle for other scales with as little error, so nearly nothing is lost.
    const double most = expected_loss(type) * 0.2;
    check_loss(type, loss(found, again), most, "again");
  }
  for (const QuantType type : {QuantType::kQ8_0, QuantType::kQ4_0, QuantType::kQ5_0}) {
    Row whole(kColumns);
    const int high = type == QuantType::kQ8_0 ? 127 : type == QuantType::kQ4_0 ? 7 : 15;
    const int low = type == QuantType::kQ8_0 ? -127 : -high - 1;
    for (size_t i = 0; i < kColumns; ++i) {
      whole[i] = static_cast<float>(low + static_cast<int>(i * 7 % 32) * (high - low) / 31) * 0.25f;
    }
    const Bytes bytes = quantized(type, whole);
    CHECK(restored(type, bytes, kColumns) == whole);
    CHECK(quantized(type, restored(type, bytes, kColumns)) == bytes);
  }
}

TEST("every level writes the same bytes") {
  const Row importance = importance_of(kColumns, 13);
  for (uint32_t seed = 0; seed < 20; ++seed) {
    Row row = gaussian(kColumns, 100 + seed, std::exp2(static_cast<float>(seed) - 10.0f));
    if (seed % 3 == 0) {
      for (float& value : row) value = value * value * value;  // heavy tails
    }
    for (const QuantType type : quantizers()) {
      Bytes first(row_bytes(type, kColumns));
      quantize_row_at(0, type, row.data(), kColumns, importance.data(), first.data());
      for (size_t level = 1; level < num_quantize_levels(); ++level) {
        Bytes other(first.size());
        quantize_row_at(level, type, row.data(), kColumns, importance.data(), other.data());
        CHECK(first == other);
      }
    }
  }
}

TEST("every machine writes the same bytes") {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  const Row importance = importance_of(kColumns, 15);
  for (const QuantType type : quantizers()) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      for (const std::byte one : quantized(type, gaussian(kColumns, 200 + seed), &importance)) {
        hash = (hash ^ static_cast<uint64_t>(one)) * 0x100000001B3;
      }
    }
  }
  // Changes when a search changes, and then on every machine alike.
  CHECK_EQUAL(hash, 2432663537684341586u);
}

TEST("rows of any number of blocks are written, and nothing behind them") {
  for (const QuantType type : quantizers()) {
    const size_t block = traits(type).block_elements;
    for (size_t blocks = 1; blocks <= 19; ++blocks) {
      const Row row = gaussian(blocks * block, static_cast<uint32_t>(blocks));
      const size_t size = row_bytes(type, row.size());
      Bytes bytes(size + 64, std::byte{0xA5});
      quantize_row(type, row.data(), row.size(), nullptr, bytes.data());
      CHECK(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(size), bytes.end(),
                        [](std::byte one) { return one == std::byte{0xA5}; }));
      check_loss(type, loss(row, restored(type, bytes, row.size())), expected_loss(type) * 1.5,
                 "blocks");
    }
  }
}

TEST("a block of a plain type does not depend on its neighbours") {
  const Row row = gaussian(kColumns, 14);
  for (const QuantType type : quantizers()) {
    const size_t block = traits(type).block_elements;
    const Bytes all = quantized(type, row);
    for (size_t first = 0; first < kColumns; first += 3 * block) {
      const auto at = row.begin() + static_cast<std::ptrdiff_t>(first);
      const Bytes one = quantized(type, Row(at, at + static_cast<std::ptrdiff_t>(block)));
      CHECK(std::memcmp(one.data(), all.data() + row_bytes(type, first), one.size()) == 0);
    }
  }
}

TEST("floats are rounded to the nearest, and clamped where infinity would be") {
  const Row row = {1.0f, -2.5f, 65504.0f, 1e6f, -1e6f, 3.4e38f, 0x1.004p0f, 0x1.01p0f};
  const Row half = restored(QuantType::kF16, quantized(QuantType::kF16, row), row.size());
  CHECK(half == Row({1.0f, -2.5f, 65504.0f, 65504.0f, -65504.0f, 65504.0f, 0x1.004p0f, 0x1.01p0f}));
  const Row bfloat = restored(QuantType::kBF16, quantized(QuantType::kBF16, row), row.size());
  CHECK_EQUAL(bfloat[1], -2.5f);
  CHECK(std::isfinite(bfloat[5]));
  CHECK_EQUAL(bfloat[6], 1.0f);
  CHECK_EQUAL(bfloat[7], 1.0f);  // half-way, to even
  CHECK(restored(QuantType::kF32, quantized(QuantType::kF32, row), row.size()) == row);
}

TEST("types without a quantiser say so") {
  CHECK(!can_quantize(QuantType::kIQ1_S));
  CHECK(!can_quantize(QuantType::kTQ1_0));
  CHECK(can_quantize(QuantType::kF16));
  CHECK_EQUAL(quantizers().size(), 18u);
}

}  // namespace
}  // namespace edgemoe
