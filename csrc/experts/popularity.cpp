#include "experts/popularity.h"

#include <algorithm>

namespace edgemoe {

Popularity::Popularity(size_t num_experts)
    : frequencies_(num_experts), values_(num_experts, kUnseenPopularity) {}

uint64_t Popularity::bytes(size_t num_experts) noexcept {
  return num_experts * (sizeof(Frequencies) + sizeof(float));
}

float Popularity::value(const Frequencies& frequencies) const noexcept {
  float sum = kUnseenPopularity;
  for (size_t i = 0; i < frequencies.size(); ++i) sum += weights_[i] * frequencies[i];
  return sum;
}

void Popularity::begin_step() noexcept {
  for (size_t i = 0; i < full_.size(); ++i) {
    const auto [decay, weight] = kPopularityScales[i];
    full_[i] = full_[i] * decay + (1.0f - decay);
    weights_[i] = weight / full_[i];
  }
  for (size_t expert = 0; expert < values_.size(); ++expert) {
    for (size_t i = 0; i < full_.size(); ++i) frequencies_[expert][i] *= kPopularityScales[i].decay;
    values_[expert] = value(frequencies_[expert]);
  }
}

void Popularity::record_use(size_t expert, float share) noexcept {
  for (size_t i = 0; i < full_.size(); ++i) {
    frequencies_[expert][i] += (1.0f - kPopularityScales[i].decay) * share;
  }
  values_[expert] = value(frequencies_[expert]);
}

}  // namespace edgemoe
