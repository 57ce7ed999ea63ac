#include "engine/benchmark.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <vector>

#include "base/error.h"
#include "engine/machine_limits.h"
#include "kernels/dispatch.h"
#include "model/recurrent_state.h"

namespace edgemoe {
namespace {

// Runs that fill the pool before anything is measured, at most.
constexpr uint32_t kMaxWarmUps = 32;

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

// Linear congruential: the tokens only have to be the same in every run and spread widely.
std::vector<int32_t> random_tokens(uint32_t count, uint32_t vocab_size, uint64_t seed) {
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<int32_t>((seed >> 33) % vocab_size);
  }
  return tokens;
}

uint64_t elements(const BoundTensor& tensor) {
  return tensor ? tensor.info->rows() * tensor.info->columns() : 0;
}

// Weights that one token is multiplied with, when one of `tokens_per_logits` asks for logits.
double active_weights(const ModelFile& file, uint32_t tokens_per_logits) {
  const ModelTensors& tensors = file.tensors();
  const BoundTensor& output = tensors[TensorRole::kOutput];
  uint64_t total = 0;
  for (const LayerTensors& layer : tensors.layers) {
    for (const BoundTensor& tensor : layer.dense) total += elements(tensor);
    for (const ExpertTensor& expert : layer.experts) {
      const uint64_t matrices = expert.fused_gate_up ? 2 : 1;
      total += matrices * expert.rows * expert.columns * file.spec().router.num_used;
    }
  }
  const uint64_t for_logits = elements(output ? output : tensors[TensorRole::kTokenEmbedding]);
  return static_cast<double>(total) + static_cast<double>(for_logits) / tokens_per_logits;
}

// The type and width that most of the work has: those of the experts (the type that most of them
// have, of several), or of a dense network.
std::pair<QuantType, uint64_t> main_matrix(const ModelFile& file) {
  std::array<uint64_t, kNumQuantTypes> counts = {};
  uint64_t columns = 0;
  for (const LayerTensors& layer : file.tensors().layers) {
    for (const ExpertTensor& expert : layer.experts) {
      if (columns == 0) columns = expert.columns;
      if (expert.columns != columns) continue;
      for (const QuantType type : expert.types) ++counts[static_cast<size_t>(type)];
    }
  }
  if (columns != 0) {
    const auto most = std::max_element(counts.begin(), counts.end()) - counts.begin();
    return {static_cast<QuantType>(most), columns};
  }
  const BoundTensor& gate = file.tensors().layers.at(0)[TensorRole::kFfnGate];
  return {gate.info->type, gate.info->columns()};
}

// Bytes of keys, values and states that a token reads and writes when it sees `seen` positions.
double context_bytes(const ModelSpec& spec, const MemoryPlan& plan, double seen) {
  double positions = 0;  // of all layers with keys and values
  double state_bytes = 0;
  uint32_t num_layers = 0;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& attention = layer.attention;
    state_bytes += static_cast<double>(state_floats(attention, spec.width) * sizeof(float));
    if (is_recurrent(attention.kind) || attention.kind == AttentionKind::kNone) continue;
    ++num_layers;
    positions += attention.window == 0 ? seen : std::min<double>(seen, attention.window);
  }
  if (num_layers == 0) return 2 * state_bytes;
  const double cached = static_cast<double>(plan.kv_cache_bytes) - state_bytes;
  return cached * positions / (static_cast<double>(plan.context) * num_layers) + 2 * state_bytes;
}

TokenLimits token_limits(const Engine& engine, const ModelFile& file,
                         const BenchmarkOptions& options, const MachineBandwidth& bandwidth,
                         double bytes_read_per_token) {
  const MemoryPlan plan = engine.memory_plan();
  const bool decode = options.test == BenchmarkTest::kDecode;
  // Prefill goes over the weights once per batch, and over no expert twice.
  const double batch = decode ? 1 : std::min(plan.batch, options.num_tokens);
  const double experts = std::min(static_cast<double>(plan.token_expert_bytes) * batch,
                                  static_cast<double>(plan.all_experts_bytes));
  // Every row of a batch sees the whole context, but one pass over it can serve all of them.
  const double seen = options.depth + options.num_tokens / 2.0;
  const double context = context_bytes(engine.spec(), plan, seen);
  const double touched = (static_cast<double>(plan.dense_bytes) + experts + context) / batch;
  // What is read from storage is written to memory first.
  TokenLimits limits;
  limits.memory = bandwidth.memory / (touched + bytes_read_per_token);
  limits.storage = bandwidth.storage > 0 && bytes_read_per_token > 0
                       ? bandwidth.storage / bytes_read_per_token
                       : kUnlimited;
  const auto [type, columns] = main_matrix(file);
  constexpr uint32_t kPrefillTile = 32;
  ThreadPool pool(plan.num_threads);
  const double rate = measure_multiply_rate(pool, kernels::select_table(), type, columns,
                                            decode ? 1 : kPrefillTile);
  limits.compute = rate / active_weights(file, decode ? 1 : options.num_tokens);
  return limits;
}

// Evaluates `tokens` at the session's position; returns seconds.
double time_once(Session& session, const std::vector<int32_t>& tokens, BenchmarkTest test,
                 std::vector<float>& logits, const ShouldStop& should_stop) {
  const auto start = std::chrono::steady_clock::now();
  if (test == BenchmarkTest::kPrefill) {
    session.evaluate(tokens, should_stop);
    session.logits(session.num_rows() - 1, 1, logits);
  } else {
    for (const int32_t& token : tokens) {
      session.evaluate({&token, 1}, should_stop);
      session.logits(0, 1, logits);
    }
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

ReadAheadResult read_ahead_result(const EngineStats& start, const EngineStats& end, double tokens) {
  const ReadAheadStats& first = start.read_ahead;
  const ReadAheadStats& last = end.read_ahead;
  ReadAheadResult result;
  result.recall = share(last.foreseen - first.foreseen, last.foreseeable - first.foreseeable);
  result.precision = share(last.true_guesses - first.true_guesses, last.guesses - first.guesses);
  result.useful_bytes_per_token =
      static_cast<double>(end.experts.useful_bytes - start.experts.useful_bytes) / tokens;
  result.wasted_bytes_per_token =
      static_cast<double>(end.experts.wasted_bytes - start.experts.wasted_bytes) / tokens;
  return result;
}

CacheRoutingStats difference(const CacheRoutingStats& start,
                             const CacheRoutingStats& end) noexcept {
  CacheRoutingStats result;
  result.target = end.target;
  result.choices = end.choices - start.choices;
  result.substitutions = end.substitutions - start.substitutions;
  result.weight = end.weight - start.weight;
  result.lost_weight = end.lost_weight - start.lost_weight;
  result.bytes_saved = end.bytes_saved - start.bytes_saved;
  return result;
}

LowCopyStats difference(const LowCopyStats& start, const LowCopyStats& end) noexcept {
  LowCopyStats result;
  result.threshold = end.threshold;
  result.choices = end.choices - start.choices;
  result.low_choices = end.low_choices - start.low_choices;
  result.weight = end.weight - start.weight;
  result.low_weight = end.low_weight - start.low_weight;
  result.bytes_saved = end.bytes_saved - start.bytes_saved;
  return result;
}

void check_tokens_fit(const BenchmarkOptions& options, uint32_t context) {
  if (options.num_tokens != 0 && uint64_t{options.depth} + options.num_tokens <= context) return;
  throw Error(ErrorCode::kArgument, "a benchmark takes 1 to " + std::to_string(context) +
                                        " tokens (the context); " +
                                        std::to_string(options.num_tokens) + " after " +
                                        std::to_string(options.depth) + " were asked for");
}

std::string name_of(const BenchmarkOptions& options) {
  const std::string test = options.test == BenchmarkTest::kDecode ? "tg" : "pp";
  const std::string depth = options.depth == 0 ? "" : "@d" + std::to_string(options.depth);
  return test + std::to_string(options.num_tokens) + depth;
}

double share_of_limit(const BenchmarkResult& result) noexcept {
  return result.tokens_per_second.median /
         std::min({result.limit.storage, result.limit.memory, result.limit.compute});
}

}  // namespace

void add_storage_bandwidth(double first, double second, BenchmarkResult& result) noexcept {
  result.limit.storage *= (first + second) / (2 * first);
  result.of_limit = share_of_limit(result);
}

BenchmarkResult run_benchmark(Engine& engine, const ModelFile& file,
                              const BenchmarkOptions& options, const MachineBandwidth& bandwidth,
                              const ShouldStop& should_stop) {
  if (engine.spec().has_encoder()) {
    throw Error(ErrorCode::kUnsupported,
                "models with an encoder cannot be measured yet; edgemoe run --stats says how fast "
                "they answer");
  }
  check_tokens_fit(options, engine.memory_plan().context);
  const uint32_t repetitions = std::max(options.repetitions, 1u);
  std::vector<float> logits(engine.spec().vocab_size);
  std::vector<double> rates;
  EngineStats before;
  Session session(engine);
  engine.keep_nothing_learned();
  engine.load_all_experts(should_stop);
  if (options.depth > 0) {
    session.evaluate(random_tokens(options.depth, engine.spec().vocab_size, options.seed),
                     should_stop);
  }
  uint64_t num_runs = 0;
  const auto run_once = [&] {
    const std::vector<int32_t> tokens =
        random_tokens(options.num_tokens, engine.spec().vocab_size, options.seed + num_runs);
    session.rewind(options.depth);
    session.catch_up(should_stop);
    // Recorded routing goes on from run to run: the same steps again would be in the cache.
    engine.start_routing_at(num_runs++ * options.num_tokens);
    return time_once(session, tokens, options.test, logits, should_stop);
  };
  // Until the pool is full every token pays for pages that it touches first, and evicts nothing.
  for (uint32_t run = 0; run < kMaxWarmUps; ++run) {
    before = engine.stats();
    run_once();
    const ExpertStats now = engine.stats().experts;
    const bool full = now.evictions > before.experts.evictions;
    if (full || now.bytes_read == before.experts.bytes_read) break;
  }
  before = engine.stats();
  std::vector<double> memory = {engine.measure_memory()};  // before, between and after the runs
  for (uint32_t run = 0; run < repetitions; ++run) {
    rates.push_back(options.num_tokens / run_once());
    memory.push_back(engine.measure_memory());
  }
  const EngineStats end = engine.stats();
  const ExpertStats& after = end.experts;
  const ExpertStats& start = before.experts;
  const double tokens = static_cast<double>(options.num_tokens) * repetitions;
  const auto demands = static_cast<double>(after.demands - start.demands);

  BenchmarkResult result;
  result.test = name_of(options);
  result.tokens_per_second = spread_of(rates);
  result.hit_rate = demands > 0 ? static_cast<double>(after.hits - start.hits) / demands : 1.0;
  result.bytes_read_per_token = static_cast<double>(after.bytes_read - start.bytes_read) / tokens;
  result.stall_seconds_per_token =
      static_cast<double>(after.stall_ns - start.stall_ns) * 1e-9 / tokens;
  result.busy_seconds_per_token =
      static_cast<double>(after.busy_ns - start.busy_ns) * 1e-9 / tokens;
  result.read_ahead = read_ahead_result(before, end, tokens);
  result.cache_routing = difference(before.cache_routing, end.cache_routing);
  result.low_copies = difference(before.low_copies, end.low_copies);
  MachineBandwidth measured = bandwidth;
  if (memory.front() > 0) measured.memory = spread_of(memory).median;
  result.limit = token_limits(engine, file, options, measured, result.bytes_read_per_token);
  result.of_limit = share_of_limit(result);
  return result;
}

}  // namespace edgemoe
