// kernels: products of one matrix type on every level, against the limits measured in the same run.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "commands.h"
#include "engine/machine_limits.h"
#include "engine/sample_product.h"
#include "engine/system_memory.h"
#include "kernels/dispatch.h"
#include "quant/layout.h"

namespace edgemoe::bench {
namespace {

struct Shape {
  QuantType type;
  uint64_t rows;
  uint64_t columns;
};

// Seconds that all threads take for the product.
double time_product(ThreadPool& pool, kernels::MatmulFn multiply, const kernels::MatmulArgs& args) {
  const size_t step = align_up(ceil_div(args.rows, pool.num_threads() * 8), kRowGroup);
  const auto start = std::chrono::steady_clock::now();
  pool.parallel_runs(ceil_div(args.rows, step), [&](size_t item, size_t) {
    kernels::MatmulArgs part = args;
    part.row_begin = item * step;
    part.row_end = std::min<size_t>(args.rows, (item + 1) * step);
    multiply(part);
  });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A shared machine's bandwidth changes within seconds: it is measured before, between and after the
// runs that are compared with it. Bytes per second, medians.
struct MemorySpeed {
  double product;
  double limit;
};
MemorySpeed measure_memory(ThreadPool& pool, const kernels::KernelTable& table, const Shape& shape,
                           const AlignedBuffer& weights, const AlignedBuffer& other) {
  constexpr size_t kRounds = 4;
  constexpr size_t kRunsOfRound = 2;
  const SampleProduct product(shape.type, shape.rows, shape.columns, 1, weights.data());
  const kernels::MatmulFn multiply = kernels::product_of(table, shape.type, 1);
  time_product(pool, multiply, product.args());  // warms up
  std::vector<double> limits = {measure_read_bandwidth(pool, {other.data(), other.bytes()})};
  std::vector<double> rates;
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t run = 0; run < kRunsOfRound; ++run) {
      const double seconds = time_product(pool, multiply, product.args());
      rates.push_back(static_cast<double>(weights.bytes()) / seconds);
    }
    limits.push_back(measure_read_bandwidth(pool, {other.data(), other.bytes()}));
  }
  return {median_of(std::move(rates)), median_of(std::move(limits))};
}

// In the cache; best of several passes on both sides, and the limit before and after. Types whose
// activations are floats are not made of products of codes: null, as at the scalar level.
void write_cached(ThreadPool& pool, const kernels::KernelTable& table, const Shape& shape,
                  JsonWriter& json) {
  constexpr uint32_t kTokens[] = {1, 4, 32};
  const bool has_codes = traits(shape.type).activations != ActivationEncoding::kF32;
  double peak = has_codes ? measure_multiply_peak(pool, table) : 0;
  std::vector<double> rates;
  for (const uint32_t tokens : kTokens) {
    rates.push_back(measure_multiply_rate(pool, table, shape.type, shape.columns, tokens));
  }
  if (peak > 0) peak = std::max(peak, measure_multiply_peak(pool, table));
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  json.field("peak_gigaops_per_second", peak > 0 ? 2e-9 * peak : kNone);
  for (size_t i = 0; i < rates.size(); ++i) {
    const std::string tokens = std::to_string(kTokens[i]) + "_tokens";
    json.field("cached_gigaops_per_second_" + tokens, 2e-9 * rates[i]);
    json.field("of_peak_" + tokens, peak > 0 ? rates[i] / peak : kNone);
  }
}

void write_level(ThreadPool& pool, const kernels::KernelTable& table, const Shape& shape,
                 const AlignedBuffer& weights, const AlignedBuffer& other, JsonWriter& json) {
  const MemorySpeed speed = measure_memory(pool, table, shape, weights, other);
  json.begin_object();
  json.field("type", traits(shape.type).name);
  json.field("level", std::string_view(table.level));
  json.field("vector_gigabytes_per_second", speed.product * 1e-9);
  json.field("read_gigabytes_per_second", speed.limit * 1e-9);
  json.field("of_read_bandwidth", speed.product / speed.limit);
  write_cached(pool, table, shape, json);
  json.end_object();
}

}  // namespace

void kernels_command(Arguments& arguments, JsonWriter& json) {
  constexpr uint64_t kOtherBytes = 256 * kMiB;  // more than most last-level caches
  const std::string type_name = arguments.text("type", "all");
  const uint64_t columns = arguments.count("columns", 2048, 1u << 16);
  const uint64_t rows = arguments.count("rows", 65536, 1u << 20);
  const uint64_t threads = arguments.count("threads", usable_cpus(), 1024);
  arguments.refuse_unknown();
  arguments.refuse_file();
  const std::optional<QuantType> chosen = quant_type_from_name(type_name);
  if (type_name != "all" && !chosen) {
    throw Error(ErrorCode::kArgument, "--type: '" + type_name + "' is not a quantisation type");
  }
  if (columns % 256 != 0) {
    throw Error(ErrorCode::kArgument, "--columns must be a multiple of 256");
  }
  const auto tables = kernels::chosen_tables();
  const uint64_t row = row_bytes(chosen.value_or(QuantType::kF32), columns);
  require_memory(rows * row + kOtherBytes, "--rows or --columns");
  ThreadPool pool(threads);
  AlignedBuffer other(kOtherBytes);
  std::memset(other.data(), 1, other.bytes());
  json.field("threads", uint64_t{pool.num_threads()});
  json.key("results");
  json.begin_array();
  for (const QuantTraits& one : all_quant_types()) {
    if (chosen && one.type != *chosen) continue;
    const Shape shape{one.type, rows, columns};
    AlignedBuffer weights(rows * row_bytes(one.type, columns));
    std::memset(weights.data(), 0x11, weights.bytes());
    for (const kernels::KernelTable* table : tables) {
      write_level(pool, *table, shape, weights, other, json);
    }
  }
  json.end_array();
}

}  // namespace edgemoe::bench
