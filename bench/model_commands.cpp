// prefill and decode: the same figures and JSON as the command `edgemoe bench`.
#include <algorithm>
#include <cstdlib>

#include "base/units.h"
#include "commands.h"
#include "engine/benchmark.h"
#include "engine/machine_limits.h"
#include "engine/system_memory.h"
#include "model/kv_cache.h"

namespace edgemoe::bench {
EngineOptions load_options(Arguments& arguments) {
  constexpr uint64_t kMaxCount = 1u << 20;
  EngineOptions options;
  const std::string memory = arguments.text("memory", "auto");
  if (memory == "min") {
    options.memory = EngineOptions::Memory::kLeast;
  } else if (memory != "auto") {
    options.memory = EngineOptions::Memory::kBytes;
    options.memory_bytes = arguments.size("memory", 0);
  }
  options.num_threads = static_cast<uint32_t>(arguments.number("threads", 0, 1024));
  options.context = static_cast<uint32_t>(arguments.number("context", 0, kMaxCount));
  options.batch = static_cast<uint32_t>(arguments.number("batch", 0, kMaxCount));
  options.kv_type = kv_type_from_name(arguments.text("kv-type", "f16"));
  options.mode = mode_from_name(arguments.text("mode", "stream"));
  options.eviction = eviction_policy_from_name(arguments.text("eviction", "layer-aware"));
  options.preload = preload_policy_from_name(arguments.text("preload", "auto"));
  options.predictor = predictor_from_name(arguments.text("predictor", "router"));
  options.look_ahead = static_cast<uint32_t>(
      arguments.number("look-ahead", options.look_ahead, ReadAhead::kMaxDistance));
  // 0, the default, measures; size() takes no 0.
  if (arguments.text("in-flight", "").size() > 0) {
    options.in_flight_bytes = arguments.size("in-flight", 0);
  }
  options.cache_folder = arguments.text("cache-folder", "");
  options.lossy_routing = arguments.real("lossy-routing", options.lossy_routing);
  options.lossy_low_copy = arguments.real("lossy-low-copy", options.lossy_low_copy);
  options.reader.backend = arguments.text("io", "auto");
  return options;
}

namespace {

MachineBandwidth bandwidth_of(const EngineOptions& options, const ModelFile& file) {
  ThreadPool pool(options.num_threads != 0 ? options.num_threads : usable_cpus());
  const uint64_t buffer_bytes = measurement_bytes(file.plan(options));
  MachineBandwidth bandwidth;
  bandwidth.memory = measure_read_bandwidth(pool, buffer_bytes);
  bandwidth.storage = measure_expert_reads(file, options.reader, buffer_bytes);
  return bandwidth;
}

void write_result(const BenchmarkResult& result, JsonWriter& json) {
  json.begin_object();
  json.field("test", std::string_view(result.test));
  json.key("tokens_per_second");
  json.begin_object();
  json.field("median", result.tokens_per_second.median);
  json.field("min", result.tokens_per_second.min);
  json.field("max", result.tokens_per_second.max);
  json.end_object();
  json.field("hit_rate", result.hit_rate);
  json.field("bytes_read_per_token", result.bytes_read_per_token);
  json.field("stall_seconds_per_token", result.stall_seconds_per_token);
  json.field("busy_seconds_per_token", result.busy_seconds_per_token);
  json.key("read_ahead");
  json.begin_object();
  json.field("recall", result.read_ahead.recall);
  json.field("precision", result.read_ahead.precision);
  json.field("useful_bytes_per_token", result.read_ahead.useful_bytes_per_token);
  json.field("wasted_bytes_per_token", result.read_ahead.wasted_bytes_per_token);
  json.end_object();
  if (result.cache_routing.target < 1) {
    json.key("lossy_routing");
    json.begin_object();
    json.field("target", result.cache_routing.target);
    json.field("agreement", result.cache_routing.agreement());
    json.field("choices", result.cache_routing.choices);
    json.field("substitutions", result.cache_routing.substitutions);
    json.field("bytes_saved", result.cache_routing.bytes_saved);
    json.end_object();
  }
  if (result.low_copies.threshold < 1) {
    json.key("lossy_low_copy");
    json.begin_object();
    json.field("threshold", result.low_copies.threshold);
    json.field("share", result.low_copies.low_share());
    json.field("choices", result.low_copies.choices);
    json.field("low_choices", result.low_copies.low_choices);
    json.field("bytes_saved", result.low_copies.bytes_saved);
    json.end_object();
  }
  json.key("limit");
  json.begin_object();
  json.field("storage", result.limit.storage);
  json.field("memory", result.limit.memory);
  json.field("compute", result.limit.compute);
  json.end_object();
  json.field("of_limit", result.of_limit);
  json.end_object();
}

void run_model(Arguments& arguments, BenchmarkTest test, uint32_t default_tokens,
               JsonWriter& json) {
  EngineOptions options = load_options(arguments);
  BenchmarkOptions benchmark;
  benchmark.test = test;
  benchmark.num_tokens = static_cast<uint32_t>(arguments.count("tokens", default_tokens, 1u << 20));
  benchmark.depth = static_cast<uint32_t>(arguments.number("depth", 0, 1u << 20));
  benchmark.repetitions = static_cast<uint32_t>(arguments.count("repetitions", 3, 1000));
  arguments.refuse_unknown();
  if (benchmark.depth > 0 && options.context == 0) {
    options.context = benchmark.depth + benchmark.num_tokens;
  }

  ModelFile file(arguments.file());
  file.gguf().drop_vocabulary();
  const MachineBandwidth bandwidth = bandwidth_of(options, file);
  std::unique_ptr<Engine> engine = Engine::load(file, options);
  BenchmarkResult result = run_benchmark(*engine, file, benchmark, bandwidth, {});
  const MemoryPlan plan = engine->memory_plan();
  const EngineStats stats = engine->stats();
  const std::string level = engine->level();
  const std::string io(engine->io_backend());
  engine.reset();  // what it held is room for the second measurement
  if (bandwidth.storage > 0) {
    const double again = measure_expert_reads(file, options.reader, measurement_bytes(plan));
    add_storage_bandwidth(bandwidth.storage, again, result);
  }
  json.key("results");
  json.begin_array();
  write_result(result, json);
  json.end_array();
  json.field("mode", rules_of(options.mode).name);
  json.key("memory");
  json.begin_object();
  json.field("budget_bytes", plan.budget_bytes);
  json.field("peak_bytes", stats.peak_resident_bytes);
  // The peak may be that of measuring the machine before the model was loaded.
  json.field("resident_bytes", stats.resident_bytes);
  json.end_object();
  json.field("level", std::string_view(level));
  json.field("threads", uint64_t{plan.num_threads});
  json.field("io", std::string_view(io));
}

}  // namespace

void prefill_command(Arguments& arguments, JsonWriter& json) {
  run_model(arguments, BenchmarkTest::kPrefill, 512, json);
}

void decode_command(Arguments& arguments, JsonWriter& json) {
  run_model(arguments, BenchmarkTest::kDecode, 128, json);
}

}  // namespace edgemoe::bench
