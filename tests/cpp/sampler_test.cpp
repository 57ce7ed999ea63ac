#include "engine/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include "test.h"

namespace edgemoe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

SamplingOptions neutral() {
  SamplingOptions options;
  options.temperature = 1.0f;
  options.top_k = 0;
  options.top_p = 1.0f;
  options.min_p = 0.0f;
  return options;
}

SamplingOptions greedy() {
  SamplingOptions options = neutral();
  options.temperature = 0.0f;
  return options;
}

std::map<int32_t, int> counts(const SamplingOptions& options, const std::vector<float>& logits) {
  Sampler sampler(options, logits.size());
  std::map<int32_t, int> seen;
  for (int i = 0; i < 20000; ++i) ++seen[sampler.sample(logits)];
  return seen;
}

TEST("greedy takes the largest logit, the lowest token among equals, never NaN") {
  Sampler sampler(greedy(), 5);
  CHECK_EQUAL(sampler.sample(std::vector<float>{1, 3, kNan, 3, -kInfinity}), 1);
}

TEST("frequencies follow the softmax") {
  const auto seen = counts(neutral(), {0.0f, std::log(2.0f), std::log(5.0f)});
  CHECK(std::abs(seen.at(0) - 2500) < 250);
  CHECK(std::abs(seen.at(1) - 5000) < 300);
  CHECK(std::abs(seen.at(2) - 12500) < 350);
}

TEST("temperature sharpens") {
  SamplingOptions options = neutral();
  options.temperature = 0.5f;
  const auto seen = counts(options, {0.0f, std::log(2.0f)});
  CHECK(std::abs(seen.at(1) - 16000) < 350);
}

TEST("top-k, top-p and min-p keep the best candidates only") {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(3.0f),
                                     std::log(4.0f)};
  SamplingOptions options = neutral();
  options.top_k = 2;
  CHECK_EQUAL(counts(options, logits).size(), 2u);
  options = neutral();
  options.top_p = 0.65f;  // 4/10, then 3/10
  CHECK_EQUAL(counts(options, logits).size(), 2u);
  options = neutral();
  options.min_p = 0.45f;  // of 4: 3 and 2 stay, 1 goes
  CHECK_EQUAL(counts(options, logits).size(), 3u);
}

TEST("penalties look at the last tokens only") {
  SamplingOptions options = greedy();
  options.repetition_penalty = 2.0f;
  options.penalty_window = 2;
  Sampler sampler(options, 3);
  const std::vector<float> logits = {3.0f, 2.0f, 1.0f};
  CHECK_EQUAL(sampler.sample(logits), 0);
  sampler.accept(0);
  CHECK_EQUAL(sampler.sample(logits), 1);  // 1.5 against 2
  sampler.accept(2);
  sampler.accept(2);
  CHECK_EQUAL(sampler.sample(logits), 0);  // forgotten
}

TEST("frequency and presence penalties subtract, biases add") {
  SamplingOptions options = greedy();
  options.frequency_penalty = 0.6f;
  options.presence_penalty = 0.3f;
  Sampler sampler(options, 2);
  const std::vector<float> logits = {2.0f, 1.0f};
  sampler.accept(0);
  CHECK_EQUAL(sampler.sample(logits), 0);  // 1.1
  sampler.accept(0);
  CHECK_EQUAL(sampler.sample(logits), 1);  // 0.5
  options = greedy();
  options.logit_bias = {{1, 5.0f}};
  CHECK_EQUAL(Sampler(options, 2).sample(logits), 1);
}

TEST("the same seed gives the same tokens, another seed others") {
  const std::vector<float> logits(1000, 0.0f);
  const auto sequence = [&](uint64_t seed) {
    SamplingOptions options = neutral();
    options.seed = seed;
    Sampler sampler(options, logits.size());
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  CHECK(sequence(1) == sequence(1));
  CHECK(sequence(1) != sequence(2));
}

TEST("options out of range are refused by name") {
  const auto refused = [](auto change) {
    SamplingOptions options = neutral();
    change(options);
    return ERROR_MESSAGE(ErrorCode::kArgument, Sampler(options, 10));
  };
  CHECK(refused([](auto& o) { o.temperature = -1; }).find("temperature") != std::string::npos);
  CHECK(refused([](auto& o) { o.top_p = kNan; }).find("top_p") != std::string::npos);
  CHECK(refused([](auto& o) { o.min_p = 1.5f; }).find("min_p") != std::string::npos);
  CHECK(refused([](auto& o) { o.repetition_penalty = 0; }).find("repet") != std::string::npos);
  CHECK(refused([](auto& o) { o.logit_bias = {{10, 1.0f}}; }).find("10") != std::string::npos);
}

TEST("logits without a finite one are an error") {
  Sampler sampler(neutral(), 2);
  ERROR_MESSAGE(ErrorCode::kInternal, sampler.sample(std::vector<float>{kNan, -kInfinity}));
}

}  // namespace
}  // namespace edgemoe
