// attention: queries against a long context on every level, against the limits measured in the same
// run: the time to read keys and values once, and the time of the products at the rate of a float
// matrix that stays in the cache.
#include <algorithm>
#include <chrono>
#include <cmath>
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
#include "model/kv_cache.h"

namespace edgemoe::bench {
namespace {

using kernels::AttendArgs;
using kernels::AttendQuery;
using kernels::KvType;

struct Shape {
  size_t heads;
  size_t kv_heads;
  size_t size;
  size_t context;
  size_t rows;  // the last ones of the context
};

struct TypeName {
  KvType type;
  const char* name;
};
constexpr size_t kLeastLayers = 3;
constexpr TypeName kTypes[] = {
    {KvType::kF16, "f16"}, {KvType::kQ8_0, "q8_0"}, {KvType::kF32, "f32"}};

// Keys and values of one layer after another, head after head.
class Caches {
 public:
  Caches(const kernels::KernelTable& table, const Shape& shape, KvType type, size_t layers)
      : shape_(shape),
        type_(type),
        stride_(kv_row_bytes(type, shape.size)),
        rows_(2 * layers * shape.kv_heads * shape.context * stride_) {
    std::vector<float> row(shape.size);
    for (size_t at = 0; at < rows_.bytes(); at += stride_) {
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] = std::sin(static_cast<float>((at / stride_ * 7 + i * 3) % 1000));
      }
      table.store_kv(type, row.data(), row.size(), rows_.data() + at);
    }
  }

  AttendArgs args(size_t layer, size_t kv_head) const {
    const size_t head_bytes = shape_.context * stride_;
    AttendArgs args{};
    args.keys = rows_.data() + 2 * (layer * shape_.kv_heads + kv_head) * head_bytes;
    args.values = args.keys + head_bytes;
    args.key_stride = args.value_stride = stride_;
    args.key_size = args.value_size = shape_.size;
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape_.size));
    args.type = type_;
    return args;
  }
  size_t layer_bytes() const { return 2 * shape_.kv_heads * shape_.context * stride_; }

 private:
  Shape shape_;
  KvType type_;
  size_t stride_;
  AlignedBuffer rows_;
};

// One KV head of one layer, a tile of rows with all heads that share it.
void attend_tile(const kernels::KernelTable& table, const Shape& shape, AttendArgs args,
                 size_t first_row, float* out) {
  const size_t group = shape.heads / shape.kv_heads;
  const size_t last_row =
      std::min(shape.rows, first_row + std::max<size_t>(kernels::kMaxAttendQueries / group, 1));
  const std::vector<float> query(shape.size, 0.125f);
  std::vector<AttendQuery> queries;
  for (size_t row = first_row; row < last_row; ++row) {
    for (size_t head = 0; head < group; ++head) {
      queries.push_back({query.data(), out + queries.size() * shape.size, nullptr, 0,
                         shape.context - shape.rows + row + 1});
    }
  }
  args.queries = queries.data();
  args.num_queries = queries.size();
  table.attend(args);
}

// Seconds per layer, median over layers.
double time_layer(ThreadPool& pool, const kernels::KernelTable& table, const Shape& shape,
                  const Caches& caches, size_t layers) {
  const size_t tile =
      std::max<size_t>(kernels::kMaxAttendQueries * shape.kv_heads / shape.heads, 1);
  const size_t tiles = ceil_div(shape.rows, tile);
  const size_t tile_floats = kernels::kMaxAttendQueries * shape.size;
  std::vector<float> out(tiles * shape.kv_heads * tile_floats);
  std::vector<double> seconds;
  for (size_t layer = 0; layer < layers; ++layer) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(tiles * shape.kv_heads, [&](size_t item, size_t) {
      attend_tile(table, shape, caches.args(layer, item % shape.kv_heads),
                  item / shape.kv_heads * tile, out.data() + item * tile_floats);
    });
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

void write_type(ThreadPool& pool, const Shape& shape, const TypeName& type, double bandwidth,
                JsonWriter& json) {
  constexpr size_t kColdBytes = 256 * kMiB;
  const size_t layer_bytes =
      2 * shape.kv_heads * shape.context * kv_row_bytes(type.type, shape.size);
  const size_t layers = std::clamp<size_t>(kColdBytes / layer_bytes, kLeastLayers, 64);
  const Caches caches(kernels::select_table(), shape, type.type, layers);
  const double seen = static_cast<double>(shape.context) - static_cast<double>(shape.rows - 1) / 2;
  const double products = 2.0 * static_cast<double>(shape.heads * shape.size * shape.rows) * seen;
  for (const kernels::KernelTable* table : kernels::chosen_tables()) {
    const double rate = measure_multiply_rate(pool, *table, QuantType::kF32, 256, 32);
    const double seconds = time_layer(pool, *table, shape, caches, layers);
    const double memory = static_cast<double>(caches.layer_bytes()) / bandwidth;
    const double compute = products / rate;
    json.begin_object();
    json.field("type", std::string_view(type.name));
    json.field("level", std::string_view(table->level));
    json.field("microseconds_per_layer", seconds * 1e6);
    json.field("gigabytes_per_second", static_cast<double>(caches.layer_bytes()) / seconds * 1e-9);
    json.field("gigaops_per_second", 2e-9 * products / seconds);
    json.field("memory_limit_microseconds", memory * 1e6);
    json.field("compute_limit_microseconds", compute * 1e6);
    json.field("of_limit", std::max(memory, compute) / seconds);
    json.end_object();
  }
}

// Of the widest type: keys and values of the fewest layers, and what the rows give.
uint64_t needed_bytes(const Shape& shape) {
  const uint64_t layer_floats = 2 * shape.kv_heads * shape.context * shape.size;
  const uint64_t tile_floats = kernels::kMaxAttendQueries * shape.size;
  return (kLeastLayers * layer_floats + shape.rows * shape.kv_heads * tile_floats) * sizeof(float);
}

}  // namespace

void attention_command(Arguments& arguments, JsonWriter& json) {
  Shape shape{};
  shape.heads = arguments.count("heads", 32, 1024);
  shape.kv_heads = arguments.count("kv-heads", 4, 1024);
  shape.size = arguments.count("size", 128, 4096);
  shape.context = arguments.count("context", 8192, 1u << 20);
  shape.rows = arguments.count("rows", 1, 4096);
  const std::string chosen = arguments.text("type", "all");
  const uint64_t threads = arguments.count("threads", usable_cpus(), 1024);
  arguments.refuse_unknown();
  arguments.refuse_file();
  const bool is_known = std::any_of(std::begin(kTypes), std::end(kTypes),
                                    [&](const TypeName& type) { return chosen == type.name; });
  if (chosen != "all" && !is_known) {
    throw Error(ErrorCode::kArgument, "--type is '" + chosen + "'; expected f16, q8_0, f32 or all");
  }
  if (shape.heads % shape.kv_heads != 0 ||
      shape.heads / shape.kv_heads > kernels::kMaxAttendQueries) {
    throw Error(ErrorCode::kArgument, "--heads must be 1 to 32 times --kv-heads");
  }
  if (shape.size % 32 != 0) {
    throw Error(ErrorCode::kArgument, "--size must be a multiple of 32");
  }
  if (shape.rows > shape.context) {
    throw Error(ErrorCode::kArgument, "--rows must be 1 to --context");
  }
  require_memory(needed_bytes(shape), "--context, --rows, --heads or --size");
  kernels::chosen_tables();  // throws for an unknown level, before anything is measured
  ThreadPool pool(threads);
  const double bandwidth = measure_read_bandwidth(pool, 256 * kMiB);
  json.field("threads", uint64_t{pool.num_threads()});
  json.field("read_gigabytes_per_second", bandwidth * 1e-9);
  json.key("results");
  json.begin_array();
  for (const TypeName& type : kTypes) {
    if (chosen == "all" || chosen == type.name) write_type(pool, shape, type, bandwidth, json);
  }
  json.end_array();
}

}  // namespace edgemoe::bench
