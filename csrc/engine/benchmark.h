// Measures prefill and decode of a loaded model against the limits of the machine, as the command
// `bench` and the program edgemoe-bench print them.
#pragma once

#include <cstdint>
#include <string>

#include "base/should_stop.h"
#include "engine/engine.h"

namespace edgemoe {

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};

enum class BenchmarkTest : uint8_t { kPrefill, kDecode };

// Tokens per second that one resource allows; infinite where the test does not use it.
struct TokenLimits {
  double storage = 0;
  double memory = 0;
  double compute = 0;
};

// What guessing and reading ahead did; shares of 1, 0 where there were no guesses.
struct ReadAheadResult {
  double recall = 0;     // demands that a guess had named
  double precision = 0;  // guesses that came true
  double useful_bytes_per_token = 0;
  double wasted_bytes_per_token = 0;
};

struct BenchmarkResult {
  std::string test;  // "pp512", "tg128", "tg16@d8192" after 8192 tokens
  Spread tokens_per_second;
  double hit_rate = 0;
  double bytes_read_per_token = 0;
  double stall_seconds_per_token = 0;
  double busy_seconds_per_token = 0;  // with reads under way, until their end was noticed
  ReadAheadResult read_ahead;
  CacheRoutingStats cache_routing;  // of the measured tokens; target 1: routers decided
  LowCopyStats low_copies;          // likewise; threshold 1: none were used
  TokenLimits limit;
  double of_limit = 0;  // median / the least limit
};

// Bounds of the machine, in bytes per second; measured once, before the model is loaded. That of
// memory is replaced by Engine::measure_memory() between the runs where the model is large enough.
struct MachineBandwidth {
  double memory = 0;
  double storage = 0;  // 0: not known, then no storage limit is given
};

struct BenchmarkOptions {
  BenchmarkTest test = BenchmarkTest::kDecode;
  uint32_t num_tokens = 128;
  uint32_t depth = 0;        // tokens in the context before the measured ones
  uint32_t repetitions = 3;  // after one that warms up
  uint64_t seed = 1;         // of the random tokens
};

// Takes another measurement of the storage's bandwidth into the limits, as the mean of both:
// devices that are shared drift while a test runs.
void add_storage_bandwidth(double first, double second, BenchmarkResult& result) noexcept;

// With a budget for all experts they are read first. Fills a new session with `depth` random
// tokens, then evaluates random tokens from there, `repetitions` times; the figures besides the
// spread are means over them. Errors: those of Session; kArgument when num_tokens is 0 or depth +
// num_tokens exceeds the context.
BenchmarkResult run_benchmark(Engine& engine, const ModelFile& file,
                              const BenchmarkOptions& options, const MachineBandwidth& bandwidth,
                              const ShouldStop& should_stop);

}  // namespace edgemoe
