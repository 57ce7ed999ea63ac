#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/portable_math.h"

namespace edgemoe {
namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw Error(ErrorCode::kArgument, what);
}

void validate(const SamplingOptions& options, size_t vocab_size) {
  const auto at_least_zero = [](float value) { return value >= 0 && std::isfinite(value); };
  const auto share = [](float value) { return value >= 0 && value <= 1; };
  require(at_least_zero(options.temperature), "temperature must be 0 or more");
  require(options.top_p > 0 && options.top_p <= 1, "top_p must be above 0 and at most 1");
  require(share(options.min_p), "min_p must be between 0 and 1");
  require(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty),
          "repetition_penalty must be above 0");
  require(std::isfinite(options.frequency_penalty), "frequency_penalty must be finite");
  require(std::isfinite(options.presence_penalty), "presence_penalty must be finite");
  for (const auto& [token, bias] : options.logit_bias) {
    require(token >= 0 && static_cast<size_t>(token) < vocab_size,
            "logit_bias names token " + std::to_string(token) + "; the vocabulary has " +
                std::to_string(vocab_size));
    require(!std::isnan(bias), "the logit_bias of token " + std::to_string(token) + " is NaN");
  }
}

// exp for arguments up to 0; what is too small to matter is 0.
double weight_of(double difference) {
  return difference > -700.0 ? portable_exp(difference) : 0.0;
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, size_t vocab_size)
    : options_(options), vocab_size_(vocab_size), state_(options.seed) {
  validate(options_, vocab_size_);
  candidates_.reserve(vocab_size_);
  recent_.reserve(options_.penalty_window);
}

void Sampler::accept(int32_t token) {
  require(token >= 0 && static_cast<size_t>(token) < vocab_size_,
          "token " + std::to_string(token) + " is outside the vocabulary");
  if (options_.penalty_window == 0) return;
  if (recent_.size() < options_.penalty_window) {
    recent_.push_back(token);
    return;
  }
  recent_[recent_next_] = token;
  recent_next_ = (recent_next_ + 1) % recent_.size();
}

void Sampler::apply_penalties() {
  for (const auto& [token, bias] : options_.logit_bias) {
    candidates_[static_cast<size_t>(token)].logit += bias;
  }
  const bool neutral = options_.repetition_penalty == 1.0f && options_.frequency_penalty == 0.0f &&
                       options_.presence_penalty == 0.0f;
  if (neutral) return;
  std::vector<int32_t> seen = recent_;
  std::sort(seen.begin(), seen.end());
  for (size_t first = 0; first < seen.size();) {
    size_t last = first;
    while (last < seen.size() && seen[last] == seen[first]) ++last;
    const auto count = static_cast<float>(last - first);
    float& logit = candidates_[static_cast<size_t>(seen[first])].logit;
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    logit -= count * options_.frequency_penalty + options_.presence_penalty;
    first = last;
  }
}

// Sorts the candidates that top-k, top-p and min-p leave to the front; returns how many.
size_t Sampler::keep_candidates() {
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  size_t kept = candidates_.size();
  if (options_.top_k > 0 && options_.top_k < kept) {
    kept = options_.top_k;
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(kept),
                     candidates_.end(), better);
  }
  std::sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(kept), better);
  const auto best = static_cast<double>(candidates_[0].logit);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    total += weight_of(static_cast<double>(candidates_[i].logit) - best);
  }
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    const double weight = weight_of(static_cast<double>(candidates_[i].logit) - best);
    if (i > 0 && weight < static_cast<double>(options_.min_p)) return i;
    sum += weight;
    if (options_.top_p < 1 && sum >= static_cast<double>(options_.top_p) * total) return i + 1;
  }
  return kept;
}

// splitmix64: small, seeded, the same everywhere. In [0, 1).
double Sampler::next_uniform() {
  state_ += 0x9E3779B97F4A7C15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

int32_t Sampler::sample(std::span<const float> logits) {
  EM_CHECK(logits.size() == vocab_size_);
  candidates_.clear();
  for (size_t token = 0; token < logits.size(); ++token) {
    candidates_.push_back({static_cast<int32_t>(token), logits[token]});
  }
  apply_penalties();
  std::erase_if(candidates_, [](const Candidate& one) { return !std::isfinite(one.logit); });
  if (candidates_.empty()) {
    throw Error(ErrorCode::kInternal,
                "no logit is finite: the model's weights or its file are damaged");
  }
  if (options_.temperature == 0) {
    const auto best =
        std::max_element(candidates_.begin(), candidates_.end(),
                         [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; });
    return best->token;
  }
  const size_t kept = keep_candidates();
  const auto best = static_cast<double>(candidates_[0].logit);
  const auto temperature = static_cast<double>(options_.temperature);
  const auto weight = [&](size_t i) {
    return weight_of((static_cast<double>(candidates_[i].logit) - best) / temperature);
  };
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight(i);
  double left = next_uniform() * total;
  for (size_t i = 0; i + 1 < kept; ++i) {
    left -= weight(i);
    if (left < 0) return candidates_[i].token;
  }
  return candidates_[kept - 1].token;
}

}  // namespace edgemoe
