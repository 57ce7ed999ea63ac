#include "experts/popularity.h"

#include <algorithm>

namespace edgemoe {

Popularity::Popularity(size_t num_experts)
    : frequencies_(num_experts), ages_(num_experts), values_(num_experts, kUnseenPopularity) {}

uint64_t Popularity::bytes(size_t num_experts) noexcept {
  return num_experts * (sizeof(Frequencies) + 2 * sizeof(float));
}

void Popularity::update(size_t expert) noexcept {
  float sum = kUnseenPopularity;
  for (size_t i = 0; i < full_.size(); ++i) sum += weights_[i] * frequencies_[expert][i];
  values_[expert] = sum * kRestSteps / (kRestSteps + ages_[expert]);
}

void Popularity::begin_step() noexcept {
  for (size_t i = 0; i < full_.size(); ++i) {
    const auto [decay, weight] = kPopularityScales[i];
    full_[i] = full_[i] * decay + (1.0f - decay);
    weights_[i] = weight / full_[i];
  }
  for (size_t expert = 0; expert < values_.size(); ++expert) {
    for (size_t i = 0; i < full_.size(); ++i) frequencies_[expert][i] *= kPopularityScales[i].decay;
    ages_[expert] += 1.0f;
    update(expert);
  }
}

void Popularity::record_use(size_t expert, float share) noexcept {
  for (size_t i = 0; i < full_.size(); ++i) {
    frequencies_[expert][i] += (1.0f - kPopularityScales[i].decay) * share;
  }
  ages_[expert] *= 1.0f - share;
  update(expert);
}

}  // namespace edgemoe
