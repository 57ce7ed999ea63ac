#include "experts/read_ahead.h"

#include <algorithm>

#include "base/error.h"
#include "base/named_row.h"

namespace edgemoe {
namespace {

constexpr PreloadPolicyName kPolicies[] = {
    {PreloadPolicy::kNone, "none"},
    {PreloadPolicy::kAuto, "auto"},
    {PreloadPolicy::kAlways, "always"},
};

// The share of true guesses is followed over about this many.
constexpr float kTrustRate = 1.0f / 64;

}  // namespace

std::span<const PreloadPolicyName> preload_policies() noexcept {
  return kPolicies;
}

PreloadPolicy preload_policy_from_name(std::string_view name) {
  return row_named(preload_policies(), "preload policy", name).policy;
}

ReadAhead::ReadAhead(uint32_t num_layers, uint32_t num_experts, uint32_t num_used,
                     PreloadPolicy policy)
    : policy_(policy),
      num_ranks_(std::max(num_used, 1u)),
      layers_(num_layers),
      // Trusted until they disappoint: what is learned in the first tokens would be lost otherwise.
      trust_(kNumKinds * num_ranks_, kLeastTrust),
      is_demanded_(num_experts) {
  for (Guesses& guesses : layers_) {
    for (std::vector<Guess>& seen : guesses.seen) {
      seen.reserve(std::min(num_experts, kGuessedRows * num_used));
    }
    guesses.seen[kBatch].reserve(num_experts);
  }
}

float& ReadAhead::trust(uint32_t kind, size_t rank) noexcept {
  return trust_[kind * num_ranks_ + std::min(rank, num_ranks_ - 1)];
}

void ReadAhead::guess(uint32_t layer, uint32_t kind, std::span<const Guess> guesses) {
  EM_ASSERT(kind < kNumKinds && guesses.size() <= is_demanded_.size());
  Guesses& of_layer = layers_[layer];
  of_layer.seen[kind].assign(guesses.begin(), guesses.end());
  of_layer.kind = kind;
  of_layer.next = 0;
  nearest_ = std::min(nearest_, layer);
}

void ReadAhead::judge(std::span<const Guess> guesses, uint32_t kind) {
  for (size_t rank = 0; rank < guesses.size(); ++rank) {
    if (!guesses[rank].is_missing) continue;
    const bool came_true = is_demanded_[guesses[rank].expert] != 0;
    float& share = trust(kind, rank);
    share += kTrustRate * ((came_true ? 1.0f : 0.0f) - share);
  }
}

void ReadAhead::settle(uint32_t layer, std::span<const uint32_t> demanded) {
  nearest_ = layer + 1;
  Guesses& guesses = layers_[layer];
  const std::span<const Guess> latest = guesses.seen[guesses.kind];
  if (latest.empty()) return;
  for (const uint32_t expert : demanded) is_demanded_[expert] = 1;
  for (uint32_t kind = 0; kind < kNumKinds; ++kind) judge(guesses.seen[kind], kind);
  stats_.guesses += latest.size();
  stats_.foreseeable += demanded.size();
  for (const Guess& guess : latest) {
    const uint8_t demand = is_demanded_[guess.expert];
    stats_.true_guesses += demand != 0;
    stats_.foreseen += demand == 1;
    if (demand != 0) is_demanded_[guess.expert] = 2;  // named twice is foreseen once
  }
  for (const uint32_t expert : demanded) is_demanded_[expert] = 0;
  clear(guesses);
}

void ReadAhead::clear(Guesses& guesses) noexcept {
  for (std::vector<Guess>& seen : guesses.seen) seen.clear();
  guesses.next = 0;
}

void ReadAhead::forget() noexcept {
  for (Guesses& guesses : layers_) clear(guesses);
  nearest_ = 0;
}

std::optional<ExpertId> ReadAhead::take() noexcept {
  if (policy_ == PreloadPolicy::kNone) return std::nullopt;
  for (; nearest_ < layers_.size(); ++nearest_) {
    Guesses& guesses = layers_[nearest_];
    const std::span<const Guess> latest = guesses.seen[guesses.kind];
    while (guesses.next < latest.size()) {
      const size_t rank = guesses.next++;
      if (!latest[rank].is_missing) continue;
      if (policy_ == PreloadPolicy::kAuto && trust(guesses.kind, rank) < kLeastTrust) continue;
      return ExpertId{nearest_, latest[rank].expert};
    }
  }
  return std::nullopt;
}

void ReadAhead::restore_trust(std::span<const float> shares) noexcept {
  const auto is_share = [](float share) { return share >= 0.0f && share <= 1.0f; };
  if (shares.size() != trust_.size() || !std::all_of(shares.begin(), shares.end(), is_share))
    return;
  std::copy(shares.begin(), shares.end(), trust_.begin());
}

std::span<const ReadAhead::Guess> ReadAhead::guessed(uint32_t layer) const noexcept {
  return layers_[layer].seen[layers_[layer].kind];
}

}  // namespace edgemoe
