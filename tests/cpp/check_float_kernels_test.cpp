// Every level against the scalar one, bit for bit: everything but products. Operands and results
// touch guard pages, sizes are odd, results are poisoned before.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "guarded_buffer.h"
#include "kernels/dispatch.h"
#include "test.h"

namespace edgemoe {
namespace {

using kernels::AttendArgs;
using kernels::AttendQuery;
using kernels::KernelTable;
using kernels::KvType;
using test::GuardedBuffer;
using Operand = test::GuardedFloats;
using test::Side;
using Random = std::mt19937;

constexpr size_t kSizes[] = {1, 2, 7, 15, 16, 17, 31, 32, 63, 64, 65, 100, 128, 255, 1000};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Floats of all magnitudes that an operation may meet, zeros of both signs included.
std::vector<float> varied_floats(size_t count, uint32_t seed, float magnitude = 20.0f) {
  Random random(seed);
  std::normal_distribution<float> normal(0.0f, magnitude / 3);
  const float special[] = {0.0f,   -0.0f,      1.0f,     -1.0f,     0.5f,
                           1e-6f,  1e-39f,     -3e-41f,  magnitude, -magnitude,
                           0.625f, -0.624999f, 0x1p-24f, 88.7f,     -103.9f};
  std::vector<float> values(count);
  for (float& value : values) {
    value = random() % 6 == 0 ? special[random() % std::size(special)] : normal(random);
  }
  return values;
}

// Runs `action`, which fills the `bytes` bytes that it is given, on every level.
using Action = std::function<void(const KernelTable&, std::byte* out)>;
void check_levels(const std::string& what, size_t bytes, const Action& action) {
  std::vector<std::byte> expected;
  for (const KernelTable* table : kernels::available_tables()) {
    const GuardedBuffer memory(bytes);
    for (const Side side : test::kSides) {
      std::byte* out = memory.at(side, bytes);
      std::memset(out, 0xA5, bytes);
      action(*table, out);
      if (expected.empty()) expected.assign(out, out + bytes);
      if (std::memcmp(out, expected.data(), bytes) != 0) {
        test::report_failure(__FILE__, __LINE__, std::string(table->level) + " differs: " + what);
      }
    }
  }
}

// The same for operations on n floats, for all sizes. x and y hold n floats each.
using FloatAction =
    std::function<void(const KernelTable&, const float* x, const float* y, size_t n, float* out)>;
void check_float_operation(const std::string& what, const FloatAction& action) {
  for (const size_t n : kSizes) {
    for (const Side side : test::kSides) {
      const Operand x(varied_floats(n, static_cast<uint32_t>(n)), side);
      const Operand y(varied_floats(n, static_cast<uint32_t>(n) + 5000), side);
      check_levels(what + " of " + std::to_string(n), n * sizeof(float),
                   [&](const KernelTable& table, std::byte* out) {
                     action(table, x.data(), y.data(), n, reinterpret_cast<float*>(out));
                   });
    }
  }
}

void check_in_place(const std::string& what,
                    const std::function<void(const KernelTable&, size_t n, float* x)>& action) {
  check_float_operation(
      what, [&](const KernelTable& table, const float* x, const float*, size_t n, float* out) {
        std::copy(x, x + n, out);
        action(table, n, out);
      });
}

size_t kv_row_bytes(KvType type, size_t size) {
  switch (type) {
    case KvType::kF32:
      return size * 4;
    case KvType::kF16:
      return size * 2;
    case KvType::kQ8_0:
      return size / 32 * 34;
  }
  return 0;
}

struct AttendCase {
  KvType type;
  size_t key_size;
  size_t value_size;
  std::vector<std::array<size_t, 2>> ranges;  // positions of each query
  bool sink;
  float softcap;
  bool bias = false;
};

constexpr size_t kPositions = 200;
constexpr size_t kRowPadding = 6;  // rows of a cache need not touch

std::vector<std::byte> make_cache(KvType type, size_t size, uint32_t seed) {
  const size_t stride = kv_row_bytes(type, size) + kRowPadding;
  std::vector<std::byte> cache(kPositions * stride);
  for (size_t p = 0; p < kPositions; ++p) {
    const auto row = varied_floats(size, seed + static_cast<uint32_t>(p), 3.0f);
    kernels::table_by_name("scalar").store_kv(type, row.data(), size, cache.data() + p * stride);
  }
  return cache;
}

// A cache with nothing readable before its first position, or behind the last that may be read.
class CacheRows {
 public:
  CacheRows(KvType type, size_t size, size_t end, uint32_t seed, Side side)
      : stride_(kv_row_bytes(type, size) + kRowPadding),
        bytes_(end * stride_ - (end == 0 ? 0 : kRowPadding)),
        memory_(bytes_ + 1),
        first_(memory_.at(side, bytes_)) {
    const auto cache = make_cache(type, size, seed);
    std::memcpy(first_, cache.data(), bytes_);
  }
  const std::byte* first() const { return first_; }
  size_t stride() const { return stride_; }

 private:
  size_t stride_;
  size_t bytes_;
  GuardedBuffer memory_;
  std::byte* first_;
};

// All queries in one call at every level, against one call each.
void check_attend(const AttendCase& c) {
  size_t end = 0;
  for (const auto& range : c.ranges) end = std::max(end, range[1]);
  const Side side = c.sink ? Side::kStart : Side::kEnd;  // both, as cases come with and without
  const CacheRows keys(c.type, c.key_size, end, 100, side);
  const CacheRows values(c.type, c.value_size, end, 900, side);
  const size_t count = c.ranges.size();
  const Operand vectors(varied_floats(count * c.key_size, 77, 3.0f), side);
  const Operand sinks(varied_floats(count, 78, 1.0f), side);
  const Operand biases(varied_floats(count * end, 79, 2.0f), side);
  std::vector<AttendQuery> queries(count);
  for (size_t q = 0; q < count; ++q) {
    queries[q] = {vectors.data() + q * c.key_size, nullptr, c.sink ? sinks.data() + q : nullptr,
                  c.ranges[q][0], c.ranges[q][1]};
    if (c.bias) queries[q].bias = biases.data() + q * end;
  }
  AttendArgs args{};
  args.queries = queries.data();
  args.keys = keys.first();
  args.values = values.first();
  args.key_stride = keys.stride();
  args.value_stride = values.stride();
  args.key_size = c.key_size;
  args.value_size = c.value_size;
  args.scale = 1.0f / std::sqrt(static_cast<float>(c.key_size));
  args.softcap = c.softcap;
  args.type = c.type;
  const auto attend = [&](const KernelTable& table, size_t step, std::byte* out) {
    for (size_t q = 0; q < count; ++q) {
      queries[q].out = reinterpret_cast<float*>(out) + q * c.value_size;
    }
    AttendArgs part = args;
    part.num_queries = step;
    for (size_t q = 0; q < count; q += step) {
      part.queries = &queries[q];
      table.attend(part);
    }
  };
  const std::string what = "attend, type " + std::to_string(static_cast<int>(c.type)) + ", " +
                           std::to_string(count) + " queries, positions " +
                           std::to_string(c.ranges[0][0]) + ".." + std::to_string(end);
  const size_t bytes = count * c.value_size * sizeof(float);
  std::vector<std::byte> alone(bytes);
  attend(kernels::table_by_name("scalar"), 1, alone.data());
  check_levels(what, bytes, [&](const KernelTable& table, std::byte* out) {
    attend(table, count, out);
    if (std::memcmp(out, alone.data(), bytes) == 0) return;
    test::report_failure(__FILE__, __LINE__, std::string(table.level) + ", together: " + what);
  });
}

void check_attend_shapes(KvType type, const std::vector<std::array<size_t, 2>>& ranges) {
  for (const bool sink : {false, true}) {
    check_attend({type, 64, 64, ranges, sink, 0.0f});
    check_attend({type, 192, 128, ranges, sink, 0.0f});
    check_attend({type, 96, 32, ranges, sink, 50.0f});
    check_attend({type, 64, 96, ranges, sink, 0.0f, true});
    if (type == KvType::kQ8_0) continue;
    check_attend({type, 80, 70, ranges, sink, 0.0f});
    check_attend({type, 7, 5, ranges, sink, 5.0f});
  }
}

void check_quantize(size_t block, const std::vector<float>& values, Side side) {
  const Operand x(values, side);
  const size_t n = values.size();
  const size_t scale_bytes = n / block * sizeof(float);
  const size_t sum_bytes = n / 16 * sizeof(int16_t);
  check_levels("quantize of " + std::to_string(n), scale_bytes + sum_bytes + n,
               [&](const KernelTable& table, std::byte* out) {
                 const auto quantize =
                     block == 32 ? table.quantize_block32 : table.quantize_block256;
                 std::byte* sums = out + scale_bytes;
                 quantize(x.data(), n, reinterpret_cast<int8_t*>(sums + sum_bytes),
                          reinterpret_cast<float*>(out), reinterpret_cast<int16_t*>(sums));
               });
}

std::vector<float> difficult_block(size_t block) {
  std::vector<float> x = varied_floats(block * 6, 11);
  std::fill_n(x.begin(), block, 0.0f);
  std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(block), block, -1e-39f);
  for (size_t i = 0; i < block; ++i) {  // exact halves: ties
    x[2 * block + i] = (static_cast<float>(i % 254) - 126.5f) / 127.0f;
  }
  x[2 * block] = 1.0f;
  x[3 * block + 3] = std::numeric_limits<float>::max();
  return x;
}

}  // namespace

TEST("rounding of activations has the scalar bits at every level") {
  for (const size_t block : {size_t{32}, size_t{256}}) {
    for (const Side side : test::kSides) {
      check_quantize(block, difficult_block(block), side);
      check_quantize(block, varied_floats(block, 3), side);
      check_quantize(block, varied_floats(block * 5, 4), side);
    }
  }
}

TEST("dot products and norms have the scalar bits at every level") {
  using Table = const KernelTable&;
  check_float_operation("dot", [](Table table, const float* x, const float* y, size_t n,
                                  float* out) { std::fill_n(out, n, table.dot(x, y, n)); });
  check_float_operation("rms_norm",
                        [](Table table, const float* x, const float* y, size_t n, float* out) {
                          table.rms_norm(x, y, nullptr, n, 1e-6f, out);
                        });
  check_float_operation("rms_norm with bias",
                        [](Table table, const float* x, const float* y, size_t n, float* out) {
                          table.rms_norm(x, nullptr, y, n, 1e-5f, out);
                        });
  check_float_operation("layer_norm", [](Table table, const float* x, const float* y, size_t n,
                                         float* out) { table.layer_norm(x, y, y, n, 1e-5f, out); });
  check_in_place("rms_norm in place", [](Table table, size_t n, float* x) {
    table.rms_norm(x, nullptr, nullptr, n, 1e-6f, x);
  });
}

TEST("activations have the scalar bits at every level") {
  using kernels::Activation;
  for (const Activation kind :
       {Activation::kSilu, Activation::kGelu, Activation::kRelu, Activation::kSwigluOai,
        Activation::kSigmoid, Activation::kLinear, Activation::kStep}) {
    const std::string what = "activation " + std::to_string(static_cast<int>(kind));
    check_float_operation(what,
                          [kind](const KernelTable& table, const float* x, const float* y, size_t n,
                                 float* out) { table.gated_activation(kind, x, y, n, 7.0f, out); });
    check_float_operation(what + " in place", [kind](const KernelTable& table, const float* x,
                                                     const float* y, size_t n, float* out) {
      std::copy(x, x + n, out);
      table.gated_activation(kind, out, y, n, 7.0f, out);
    });
  }
}

TEST("elementwise operations have the scalar bits at every level") {
  using Table = const KernelTable&;
  check_in_place("softmax", [](Table table, size_t n, float* x) { table.softmax(x, n); });
  check_in_place("sigmoid", [](Table table, size_t n, float* x) { table.sigmoid(x, n); });
  check_in_place("scale", [](Table table, size_t n, float* x) { table.scale(-0.3f, n, x); });
  check_in_place("softcap", [](Table table, size_t n, float* x) { table.softcap(30.0f, n, x); });
  check_in_place("small softcap",
                 [](Table table, size_t n, float* x) { table.softcap(1.0f, n, x); });
  check_float_operation("add",
                        [](Table table, const float* x, const float* y, size_t n, float* out) {
                          std::copy(y, y + n, out);
                          table.add(x, n, out);
                        });
  check_float_operation("add_scaled",
                        [](Table table, const float* x, const float* y, size_t n, float* out) {
                          std::copy(y, y + n, out);
                          table.add_scaled(0.37f, x, n, out);
                        });
}

TEST("softmax with excluded entries has the scalar bits at every level") {
  check_in_place("softmax", [](const KernelTable& table, size_t n, float* x) {
    for (size_t i = 1; i < n; i += 3) x[i] = -kInfinity;
    table.softmax(x, n);
  });
}

TEST("rotations have the scalar bits at every level") {
  for (const bool neighbours : {false, true}) {
    check_float_operation("rotate", [neighbours](const KernelTable& table, const float* x,
                                                 const float* y, size_t n, float* out) {
      std::copy(x, x + n, out);
      if (n % 2 == 0) table.rotate(out, n / 2, y, y + n / 2, neighbours);
    });
  }
}

TEST("rows of the cache have the scalar bits at every level") {
  for (const size_t n : kSizes) {
    auto values = varied_floats(n, static_cast<uint32_t>(n));
    values[n / 2] = 70000.0f;  // beyond the largest half
    const Operand x(values, n % 2 == 0 ? Side::kStart : Side::kEnd);
    for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
      if (type == KvType::kQ8_0 && n % 32 != 0) continue;
      check_levels("store_kv of " + std::to_string(n), kv_row_bytes(type, n),
                   [&](const KernelTable& table, std::byte* out) {
                     table.store_kv(type, x.data(), n, out);
                   });
    }
  }
}

TEST("attention has the scalar bits at every level") {
  constexpr std::array<std::array<size_t, 2>, 7> kRanges = {
      {{0, 0}, {0, 1}, {0, 64}, {0, 65}, {3, 7}, {60, 131}, {0, kPositions}}};
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    for (const auto& range : kRanges) check_attend_shapes(type, {range});
  }
}

TEST("queries that attend together have the bits that each has alone at every level") {
  std::vector<std::array<size_t, 2>> heads(7, {5, 150});                // heads of one row
  std::vector<std::array<size_t, 2>> rows(kernels::kMaxAttendQueries);  // rows of a prefill
  std::vector<std::array<size_t, 2>> window(13);
  for (size_t q = 0; q < rows.size(); ++q) rows[q] = {0, 120 + q / 2};
  for (size_t q = 0; q < window.size(); ++q) window[q] = {50 + q, 70 + q};
  const std::vector<std::array<size_t, 2>> apart = {{0, 10},    {0, 0},   {60, 70}, {64, 128},
                                                    {190, 200}, {3, 200}, {7, 7},   {128, 129}};
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    for (const auto& ranges : {heads, rows, window, apart}) check_attend_shapes(type, ranges);
  }
}

TEST("attention with keys too wide to convert has the scalar bits at every level") {
  check_attend({KvType::kF16, 1040, 48, {{0, 70}, {0, 71}, {2, 72}, {0, 73}, {0, 74}}, true, 0.0f});
}

}  // namespace edgemoe
