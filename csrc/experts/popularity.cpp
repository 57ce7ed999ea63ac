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
constexpr uint8_t kNoClass = 255;  // of experts that were never used
static_assert(kRestClasses * kShareClasses < kNoClass);

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
    : frequencies_(num_experts),
      ages_(num_experts),
      values_(num_experts, kUnseenPopularity),
      class_before_(num_experts, kNoClass) {
  correction_.fill(1.0f);
}

uint64_t Popularity::bytes(size_t num_experts) noexcept {
  return num_experts * (sizeof(Frequencies) + 2 * sizeof(float) + sizeof(uint8_t));
}

size_t Popularity::class_of(size_t expert) const noexcept {
  constexpr float kLongest = 0x1p20f;
  const float rest = std::clamp(ages_[expert] + 1.0f, 1.0f, kLongest);
  const size_t rest_class =
      std::min<size_t>(std::bit_width(static_cast<uint32_t>(rest)) - 1, kRestClasses - 1);
  const float full = full_.back();
  const float share = full > 0 ? frequencies_[expert].back() / full : 0;
  size_t share_class = kShareClasses - 1;
  for (float least = 0.5f; share_class > 0 && share < least; least /= 2) --share_class;
  return rest_class * kShareClasses + share_class;
}

float Popularity::estimate(size_t expert) const noexcept {
  float sum = kUnseenPopularity;
  for (size_t i = 0; i < full_.size(); ++i) sum += weights_[i] * frequencies_[expert][i];
  return sum * kRestSteps / (kRestSteps + ages_[expert]);
}

void Popularity::update(size_t expert) noexcept {
  values_[expert] = estimate(expert) * (is_seen(expert) ? correction_[class_of(expert)] : 1.0f);
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
  for (size_t i = 0; i < correction_.size(); ++i) {
    expected_[i] *= kClassDecay;
    came_[i] *= kClassDecay;
  }
  for (size_t i = 0; i < correction_.size(); ++i) {
    correction_[i] = (kPriorUses + came_[i]) / (kPriorUses + expected_[i]);
  }
  for (size_t expert = 0; expert < values_.size(); ++expert) update(expert);
}

void Popularity::begin_layer(size_t first, size_t count) noexcept {
  for (size_t expert = first; expert < first + count; ++expert) {
    class_before_[expert] = kNoClass;
    if (is_seen(expert)) {
      const size_t its_class = class_of(expert);
      class_before_[expert] = static_cast<uint8_t>(its_class);
      expected_[its_class] += estimate(expert);
    }
    for (size_t i = 0; i < full_.size(); ++i) frequencies_[expert][i] *= kPopularityScales[i].decay;
    ages_[expert] += 1.0f;
    update(expert);
  }
}

void Popularity::record_use(size_t expert, float share) noexcept {
  if (class_before_[expert] != kNoClass) came_[class_before_[expert]] += share;
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
