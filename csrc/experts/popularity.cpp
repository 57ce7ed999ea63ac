#include "experts/popularity.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "experts/saved_state.h"

namespace edgemoe {
namespace {

constexpr uint32_t kStateName = 0x504f5055;  // "UPOP"
constexpr uint32_t kStateVersion = 1;

SavedStateKind state_kind(size_t num_experts) noexcept {
  return {
      kStateName, kStateVersion, {static_cast<uint32_t>(num_experts), kPopularityScales.size(), 0}};
}

// Shares, ages and sums of them: finite and not negative.
bool all_usable(std::span<const std::byte> floats) noexcept {
  for (size_t at = 0; at < floats.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, floats.data() + at, sizeof(value));
    if (!std::isfinite(value) || value < 0) return false;
  }
  return true;
}

}  // namespace

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

void Popularity::weigh() noexcept {
  for (size_t i = 0; i < full_.size(); ++i) {
    weights_[i] = full_[i] > 0 ? kPopularityScales[i].weight / full_[i] : 0;
  }
}

void Popularity::begin_step() noexcept {
  for (size_t i = 0; i < full_.size(); ++i) {
    const float decay = kPopularityScales[i].decay;
    full_[i] = full_[i] * decay + (1.0f - decay);
  }
  weigh();
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

std::array<std::span<float>, 3> Popularity::kept() noexcept {
  const std::span<float> frequencies(frequencies_.empty() ? nullptr : frequencies_[0].data(),
                                     frequencies_.size() * full_.size());
  return {frequencies, ages_, full_};
}

// No expert is used more often than always.
bool Popularity::is_possible() const noexcept {
  constexpr float kRounding = 1e-3f;
  for (size_t i = 0; i < full_.size(); ++i) {
    if (full_[i] > 1 + kRounding) return false;
    for (const Frequencies& frequencies : frequencies_) {
      if (frequencies[i] > full_[i] + kRounding) return false;
    }
  }
  return true;
}

std::vector<std::byte> Popularity::save() const {
  std::vector<std::byte> payload;
  for (const std::span<const float> part : const_cast<Popularity*>(this)->kept()) {
    const auto bytes = std::as_bytes(part);
    payload.insert(payload.end(), bytes.begin(), bytes.end());
  }
  return seal_state(state_kind(values_.size()), payload);
}

bool Popularity::load(std::span<const std::byte> saved) {
  size_t payload_bytes = 0;
  for (const std::span<const float> part : kept()) payload_bytes += part.size_bytes();
  std::span<const std::byte> payload = open_state(state_kind(values_.size()), payload_bytes, saved);
  if (payload.empty() || !all_usable(payload)) return false;
  const Popularity before = *this;
  for (const std::span<float> part : kept()) {
    std::memcpy(part.data(), payload.data(), part.size_bytes());
    payload = payload.subspan(part.size_bytes());
  }
  if (!is_possible()) {
    *this = before;
    return false;
  }
  weigh();
  for (size_t expert = 0; expert < values_.size(); ++expert) update(expert);
  return true;
}

}  // namespace edgemoe
