#include "experts/transitions.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "experts/saved_state.h"

namespace edgemoe {
namespace {

constexpr uint8_t kFull = 255;
// A row with few tokens says little: the layer's own chances count as much as this many tokens.
constexpr double kBaseTokens = 1.0;
// Of an expert that the layer never used, so that it is unlikely and not impossible.
constexpr double kLeastChance = 0.003;

size_t rows_per_layer(uint32_t num_experts) noexcept {
  return 1 + 2 * size_t{num_experts};
}
size_t row_bytes(uint32_t num_experts) noexcept {
  return size_t{num_experts} + 1;
}
size_t counts_bytes(uint32_t num_layers, uint32_t num_experts) noexcept {
  return num_layers * rows_per_layer(num_experts) * row_bytes(num_experts);
}

SavedStateKind kind_of(uint32_t num_layers, uint32_t num_experts) noexcept {
  return {0x4e415254, 1, {num_layers, num_experts, 0}};  // "TRAN"
}

}  // namespace

Transitions::Transitions(uint32_t num_layers, uint32_t num_experts)
    : num_layers_(num_layers),
      num_experts_(num_experts),
      counts_(counts_bytes(num_layers, num_experts)),
      chances_(num_experts),
      odds_(num_experts),
      ranking_(num_experts) {}

uint64_t Transitions::bytes(uint32_t num_layers, uint32_t num_experts) noexcept {
  return counts_bytes(num_layers, num_experts) +
         num_experts * (2 * sizeof(double) + sizeof(PredictedExpert));
}

std::span<uint8_t> Transitions::row(uint32_t layer, uint32_t age, uint32_t from) noexcept {
  const size_t in_layer = age == 0 ? 0 : 1 + size_t{age - 1} * num_experts_ + from;
  const size_t number = layer * rows_per_layer(num_experts_) + in_layer;
  return {counts_.data() + number * row_bytes(num_experts_), row_bytes(num_experts_)};
}

void Transitions::count(uint32_t layer, uint32_t age, uint32_t from,
                        std::span<const uint32_t> experts) noexcept {
  const std::span<uint8_t> counts = row(layer, age, from);
  // No expert has more than the tokens.
  if (counts.back() == kFull) {
    for (uint8_t& one : counts) one = static_cast<uint8_t>(one / 2);
  }
  ++counts.back();
  for (const uint32_t expert : experts) ++counts[expert];
}

void Transitions::learn(uint32_t layer, std::span<const uint32_t> experts,
                        std::span<const uint32_t> previous,
                        std::span<const uint32_t> before_previous) noexcept {
  EM_ASSERT(layer < num_layers_);
  count(layer, 0, 0, experts);
  for (const uint32_t from : previous) count(layer, 1, from, experts);
  for (const uint32_t from : before_previous) count(layer, 2, from, experts);
}

// Multiplies the odds by how much likelier each expert is after those of `from`: a row's chance,
// smoothed towards the layer's own, over the layer's own. Experts vote as if they were independent.
void Transitions::vote(uint32_t layer, uint32_t age, std::span<const uint32_t> from,
                       std::span<double> odds) noexcept {
  for (const uint32_t expert : from) {
    const std::span<const uint8_t> counts = row(layer, age, expert);
    const double tokens = counts.back() + kBaseTokens;
    for (uint32_t to = 0; to < num_experts_; ++to) {
      odds[to] *= (counts[to] / chances_[to] + kBaseTokens) / tokens;
    }
  }
}

std::span<const PredictedExpert> Transitions::predict(uint32_t layer,
                                                      std::span<const uint32_t> previous,
                                                      std::span<const uint32_t> before_previous,
                                                      uint32_t most) noexcept {
  EM_ASSERT(layer < num_layers_);
  const std::span<const uint8_t> own = row(layer, 0, 0);
  if (own.back() == 0) return {};
  for (uint32_t expert = 0; expert < num_experts_; ++expert) {
    chances_[expert] = own[expert] / static_cast<double>(own.back()) + kLeastChance;
  }
  std::fill(odds_.begin(), odds_.end(), 1.0);
  vote(layer, 2, before_previous, odds_);
  // What is farther away says less, and partly the same as what is near.
  for (double& one : odds_) one = std::sqrt(one);
  vote(layer, 1, previous, odds_);
  double total = 0;
  for (uint32_t expert = 0; expert < num_experts_; ++expert) {
    odds_[expert] *= chances_[expert];
    total += odds_[expert];
  }
  for (uint32_t expert = 0; expert < num_experts_; ++expert) {
    ranking_[expert] = {expert, static_cast<float>(odds_[expert] / total)};
  }
  const size_t count = std::min(most, num_experts_);
  std::partial_sort(ranking_.begin(), ranking_.begin() + static_cast<ptrdiff_t>(count),
                    ranking_.end(), [](const PredictedExpert& a, const PredictedExpert& b) {
                      return a.score != b.score ? a.score > b.score : a.expert < b.expert;
                    });
  return std::span<const PredictedExpert>(ranking_).first(count);
}

std::vector<std::byte> Transitions::save() const {
  return seal_state(kind_of(num_layers_, num_experts_), std::as_bytes(std::span(counts_)));
}

bool Transitions::load(std::span<const std::byte> saved) noexcept {
  const std::span<const std::byte> counts =
      open_state(kind_of(num_layers_, num_experts_), counts_.size(), saved);
  if (counts.size() != counts_.size()) return false;
  std::memcpy(counts_.data(), counts.data(), counts.size());
  // A checksum is no proof: a count above its row's tokens would overflow later.
  for (size_t i = 0; i < counts_.size(); i += row_bytes(num_experts_)) {
    uint8_t* const one = counts_.data() + i;
    for (uint32_t to = 0; to < num_experts_; ++to) one[to] = std::min(one[to], one[num_experts_]);
  }
  return true;
}

}  // namespace edgemoe
