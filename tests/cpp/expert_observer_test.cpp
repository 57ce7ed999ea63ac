// What an observer of a step is shown, and that the statistics do not depend on how rows come.
#include "model/expert_observer.h"

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "bitwidth/expert_statistics.h"
#include "engine/engine.h"
#include "gguf_folder.h"
#include "test.h"
#include "tiny_model.h"

namespace edgemoe {
namespace {

// tiny_model with weights that are not 0.
std::string random_model() {
  test::GgufImage image = test::tiny_model();
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.2f);
  for (auto& tensor : image.tensors) {
    for (size_t at = 0; at < tensor.data.size(); at += sizeof(float)) {
      const float value = normal(random);
      std::memcpy(tensor.data.data() + at, &value, sizeof value);
    }
  }
  return image.build();
}

// Sums up what the experts that it is shown would add, and compares that with the branch.
class CheckingObserver : public ExpertObserver {
 public:
  size_t branches = 0;

  void begin_step(size_t num_rows) override { num_rows_ = num_rows; }

  void observe_routing(uint32_t layer, std::span<const RoutedExpert> routed) override {
    CHECK_EQUAL(routed.size(), num_rows_ * 2);
    CHECK(layer < test::kTinyLayers);
    sums_.assign(num_rows_ * test::kTinyWidth, 0.0);
    pairs_.clear();
    weights_.clear();
    for (size_t i = 0; i < routed.size(); ++i) {
      weights_[{static_cast<uint32_t>(i / 2), routed[i].expert}] = routed[i].weight;
    }
  }

  void observe_experts(uint32_t, const Compute& compute,
                       std::span<const ObservedExpert> experts) override {
    for (const ObservedExpert& expert : experts) {
      const float* x =
          expert.x->as(ActivationEncoding::kF32, compute.table(), compute.pool()).values;
      REQUIRE(expert.token_index.size() == expert.output_weights.size());
      for (size_t i = 0; i < expert.token_index.size(); ++i) {
        const uint32_t row = expert.token_index[i];
        CHECK(i == 0 || row > expert.token_index[i - 1]);
        CHECK(pairs_.insert({row, expert.expert}).second);
        const float weight = weights_.at({row, expert.expert});
        CHECK_EQUAL(expert.output_weights[i], weight);
        add(expert.network, x + row * test::kTinyWidth, weight, row);
      }
    }
  }

  void observe_branch(uint32_t, size_t num_rows, const float* branch,
                      const float* stream) override {
    ++branches;
    CHECK_EQUAL(num_rows, num_rows_);
    CHECK_EQUAL(pairs_.size(), num_rows * 2);
    for (size_t i = 0; i < sums_.size(); ++i) {
      // Float32 sums of up to 64 terms of about 1.
      CHECK(std::abs(branch[i] - sums_[i]) < 1e-4);
      CHECK(std::isfinite(stream[i]));
    }
  }

 private:
  static double dot(const MatrixView& matrix, size_t row, const double* x) {
    const float* weights = reinterpret_cast<const float*>(matrix.data) + row * matrix.columns;
    double sum = 0.0;
    for (size_t i = 0; i < matrix.columns; ++i) sum += double{weights[i]} * x[i];
    return sum;
  }

  void add(const GatedNetwork& network, const float* input, float weight, uint32_t row) {
    const std::vector<double> x(input, input + network.gate.columns);
    std::vector<double> hidden(network.gate.rows);
    for (size_t unit = 0; unit < hidden.size(); ++unit) {
      const double gate = dot(network.gate, unit, x.data());
      hidden[unit] = gate / (1.0 + std::exp(-gate)) * dot(network.up, unit, x.data());
    }
    for (size_t i = 0; i < network.down.rows; ++i) {
      sums_[row * test::kTinyWidth + i] += weight * dot(network.down, i, hidden.data());
    }
  }

  size_t num_rows_ = 0;
  std::vector<double> sums_;
  std::set<std::pair<uint32_t, uint32_t>> pairs_;
  std::map<std::pair<uint32_t, uint32_t>, float> weights_;
};

std::vector<int32_t> tokens(size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>((7 * i * i + 3 * i) % test::kTinyVocabulary));
  }
  return ids;
}

EngineOptions options_with(uint32_t batch, uint32_t threads) {
  EngineOptions options;
  options.memory = EngineOptions::Memory::kLeast;
  options.num_threads = threads;
  options.batch = batch;
  options.context = 64;
  return options;
}

TEST("an observer is shown every expert of every row once, as it adds to the branch") {
  const test::GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", random_model()));
  for (const uint32_t batch : {1u, 16u, 64u}) {
    const auto engine = Engine::load(file, options_with(batch, 2));
    CheckingObserver observer;
    engine->observe_experts(&observer);
    Session session(*engine);
    session.evaluate(tokens(40), {});
    CHECK_EQUAL(observer.branches, test::kTinyLayers * ((40 + batch - 1) / batch));
    engine->observe_experts(nullptr);
    session.evaluate(tokens(4), {});
    CHECK_EQUAL(observer.branches, test::kTinyLayers * ((40 + batch - 1) / batch));
  }
}

// All sums of a run, and its routes.
std::pair<std::vector<double>, std::vector<int16_t>> statistics(const ModelFile& file,
                                                                uint32_t batch, uint32_t threads) {
  const auto engine = Engine::load(file, options_with(batch, threads));
  ExpertStatistics sums(file.spec(), batch, threads, CovarianceScope::kExperts);
  engine->observe_experts(&sums);
  Session session(*engine);
  session.evaluate_windows(tokens(60), 16, {});
  std::vector<double> all;
  for (const std::span<double> part :
       {sums.counts(), sums.mass(), sums.weight_squared(), sums.input(), sums.hidden(),
        sums.gate_slope(), sums.up_slope(), sums.output_power(), sums.residual_power()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return {all, sums.take_routes()};
}

TEST("statistics are the same bits for any batch and any number of threads") {
  const test::GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", random_model()));
  const auto expected = statistics(file, 64, 1);
  double counted = 0.0;
  for (size_t i = 0; i < test::kTinyLayers * test::kTinyExperts; ++i) counted += expected.first[i];
  CHECK_EQUAL(counted, 60.0 * 2 * test::kTinyLayers);
  CHECK_EQUAL(expected.second.size(), 60u * test::kTinyLayers * 2);
  for (const uint32_t batch : {1u, 5u, 16u, 33u}) {
    for (const uint32_t threads : {1u, 3u}) {
      const auto found = statistics(file, batch, threads);
      CHECK(found.first == expected.first);
      CHECK(found.second == expected.second);
    }
  }
}

TEST("what the caller reserves is part of the plan") {
  const test::GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", random_model()));
  EngineOptions options = options_with(16, 1);
  const MemoryPlan before = file.plan(options);
  options.reserved_bytes = 100 << 20;
  const MemoryPlan plan = file.plan(options);
  CHECK_EQUAL(plan.reserved_bytes, uint64_t{100} << 20);
  CHECK(plan.least_bytes >= before.least_bytes + plan.reserved_bytes);
  CHECK(describe(plan).find("for the caller") != std::string::npos);
  CHECK(describe(before).find("for the caller") == std::string::npos);
}

TEST("a window longer than the context is refused") {
  const test::GgufFolder folder;
  const ModelFile file(folder.write("model.gguf", random_model()));
  const auto engine = Engine::load(file, options_with(16, 1));
  Session session(*engine);
  const std::string message =
      ERROR_MESSAGE(ErrorCode::kArgument, session.evaluate_windows(tokens(80), 80, {}));
  CHECK(message.find("80") != std::string::npos);
}

}  // namespace
}  // namespace edgemoe
