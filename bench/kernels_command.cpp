// kernels: products of one matrix type on every level, against the limits measured in the same run.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "commands.h"
#include "engine/machine_limits.h"
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

// Seconds of one product of a matrix that lies in memory with one row of activations, median of
// several.
double time_vector_product(ThreadPool& pool, const kernels::KernelTable& table, const Shape& shape,
                           const AlignedBuffer& weights) {
  constexpr size_t kRepetitions = 7;
  const std::vector<float> values(shape.columns, 0.5f);
  const std::vector<int8_t> codes(shape.columns, 3);
  const std::vector<float> scales(ceil_div(shape.columns, 32), 0.01f);
  const std::vector<int16_t> sums(ceil_div(shape.columns, kSumBlock), int16_t{48});
  std::vector<float> out(shape.rows);
  kernels::MatmulArgs args{};
  args.weights = weights.data();
  args.rows = shape.rows;
  args.columns = shape.columns;
  args.x = {traits(shape.type).activations,
            shape.columns,
            shape.columns,
            values.data(),
            codes.data(),
            scales.data(),
            sums.data()};
  args.num_tokens = 1;
  args.out = out.data();
  args.out_stride = shape.rows;
  const size_t step = align_up(ceil_div(shape.rows, pool.num_threads() * 8), kRowGroup);
  std::vector<double> seconds;
  for (size_t run = 0; run < kRepetitions; ++run) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(ceil_div(shape.rows, step), [&](size_t item, size_t) {
      kernels::MatmulArgs part = args;
      part.row_begin = item * step;
      part.row_end = std::min<size_t>(shape.rows, (item + 1) * step);
      kernels::product_of(table, shape.type, part.num_tokens)(part);
    });
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[kRepetitions / 2];
}

void write_level(ThreadPool& pool, const kernels::KernelTable& table, const Shape& shape,
                 const AlignedBuffer& weights, double read_bandwidth, JsonWriter& json) {
  const double seconds = time_vector_product(pool, table, shape, weights);
  const double bandwidth = static_cast<double>(weights.bytes()) / seconds;
  json.begin_object();
  json.field("type", traits(shape.type).name);
  json.field("level", std::string_view(table.level));
  json.field("vector_gigabytes_per_second", bandwidth * 1e-9);
  json.field("of_read_bandwidth", bandwidth / read_bandwidth);
  for (const uint32_t tokens : {1u, 4u, 32u}) {
    json.field("cached_gigaops_per_second_" + std::to_string(tokens) + "_tokens",
               2e-9 * measure_multiply_rate(pool, table, shape.type, shape.columns, tokens));
  }
  json.end_object();
}

}  // namespace

void kernels_command(Arguments& arguments, JsonWriter& json) {
  const std::string type_name = arguments.text("type", "all");
  const uint64_t columns = arguments.number("columns", 2048, 1u << 16);
  const uint64_t rows = arguments.number("rows", 65536, 1u << 20);
  const uint64_t threads = arguments.number("threads", usable_cpus(), 1024);
  arguments.refuse_unknown();
  const std::optional<QuantType> chosen = quant_type_from_name(type_name);
  if (type_name != "all" && !chosen) {
    throw Error(ErrorCode::kArgument, "--type: '" + type_name + "' is not a quantisation type");
  }
  if (columns == 0 || columns % 256 != 0) {
    throw Error(ErrorCode::kArgument, "--columns must be a multiple of 256");
  }
  ThreadPool pool(std::max<uint64_t>(threads, 1));
  const double read_bandwidth = measure_read_bandwidth(pool, 256 * kMiB);
  json.field("threads", uint64_t{pool.num_threads()});
  json.field("read_gigabytes_per_second", read_bandwidth * 1e-9);
  json.key("results");
  json.begin_array();
  for (const QuantTraits& one : all_quant_types()) {
    if (chosen && one.type != *chosen) continue;
    const Shape shape{one.type, rows, columns};
    AlignedBuffer weights(rows * row_bytes(one.type, columns));
    std::memset(weights.data(), 0x11, weights.bytes());
    for (const kernels::KernelTable* table : kernels::available_tables()) {
      write_level(pool, *table, shape, weights, read_bandwidth, json);
    }
  }
  json.end_array();
}

}  // namespace edgemoe::bench
