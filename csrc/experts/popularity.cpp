#include "experts/popularity.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "experts/saved_state.h"

namespace edgemoe {
namespace {

constexpr uint32_t kStateName = 0x504f5055;  // "UPOP"
constexpr uint32_t kStateVersion = 2;

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

// Of a number from 2^-126 on; less for what is smaller. Without a branch, as everything here is
// that all experts go through for each token.
int floor_of_log2(float x) noexcept {
  return static_cast<int>(std::bit_cast<uint32_t>(x) >> 23) - 127;
}

}  // namespace

Popularity::Popularity(size_t num_experts)
    : frequencies_(num_experts),
      ages_(num_experts),
      estimates_(num_experts, kUnseenPopularity),
      values_(num_experts, kUnseenPopularity),
      classes_(num_experts, kUnseenClass),
      class_before_(num_experts, kUnseenClass) {
  correction_.fill(1.0f);
}

uint64_t Popularity::bytes(size_t num_experts) noexcept {
  return num_experts * (sizeof(Frequencies) + 3 * sizeof(float) + 2 * sizeof(uint8_t));
}

uint8_t Popularity::class_of(size_t expert) const noexcept {
  const float frequency = frequencies_[expert].back();
  const int rest = floor_of_log2(ages_[expert] + 1.0f);
  const int share = floor_of_log2(frequency * weights_.back() / kPopularityScales.back().weight);
  const int rest_class = std::min(rest, kRestClasses - 1);
  const int share_class = std::clamp(share + kShareClasses, 0, kShareClasses - 1);
  const int seen_class = rest_class * kShareClasses + share_class;
  return static_cast<uint8_t>(frequency > 0 ? seen_class : kUnseenClass);
}

void Popularity::update(size_t expert) noexcept {
  float sum = kUnseenPopularity;
  for (size_t i = 0; i < full_.size(); ++i) sum += weights_[i] * frequencies_[expert][i];
  estimates_[expert] = sum * kRestSteps / (kRestSteps + ages_[expert]);
  classes_[expert] = class_of(expert);
  values_[expert] = estimates_[expert] * correction_[classes_[expert]];
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
  for (float& count : expected_) count *= kClassDecay;
  for (float& count : came_) count *= kClassDecay;
  for (int i = 0; i < kUnseenClass; ++i) {
    correction_[i] = (kPriorUses + came_[i]) / (kPriorUses + expected_[i]);
  }
}

void Popularity::begin_layer(size_t first, size_t count) noexcept {
  for (size_t expert = first; expert < first + count; ++expert) {
    class_before_[expert] = classes_[expert];
    expected_[classes_[expert]] += estimates_[expert];
    for (size_t i = 0; i < full_.size(); ++i) frequencies_[expert][i] *= kPopularityScales[i].decay;
    ages_[expert] += 1.0f;
    update(expert);
  }
}

void Popularity::record_use(size_t expert, float share) noexcept {
  came_[class_before_[expert]] += share;
  for (size_t i = 0; i < full_.size(); ++i) {
    // An expert and its low copy may both be recorded; no expert is used more often than always.
    const float gained = (1.0f - kPopularityScales[i].decay) * share;
    frequencies_[expert][i] = std::min(frequencies_[expert][i] + gained, full_[i]);
  }
  ages_[expert] *= 1.0f - share;
  update(expert);
}

std::array<std::span<float>, 6> Popularity::kept() noexcept {
  const std::span<float> frequencies(frequencies_.empty() ? nullptr : frequencies_[0].data(),
                                     frequencies_.size() * full_.size());
  return {frequencies, ages_, full_, expected_, came_, correction_};
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
