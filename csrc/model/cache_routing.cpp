#include "model/cache_routing.h"

#include <algorithm>
#include <limits>

#include "base/portable_math.h"

namespace edgemoe {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Tokens whose credit is kept: what long stretches without misses leave must not pay for a stretch
// in which nothing is as the router wants it.
constexpr double kMostTokens = 16;

uint32_t num_moe_layers(const ExpertLayout& layout) noexcept {
  uint32_t count = 0;
  for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) count += layout.is_moe(layer);
  return count;
}

// What an expert's weight is proportional to, whether or not the family normalises it.
double proportion(const RouterSpec& router, float score, float best) noexcept {
  if (router.score != RouterScore::kSoftmaxTopK) return static_cast<double>(score);
  const double below = static_cast<double>(score) - static_cast<double>(best);
  return below > -700.0 ? portable_exp(std::min(below, 700.0)) : 0.0;
}

}  // namespace

CacheRouting::CacheRouting(double target, const RouterSpec& router, const ExpertCache& cache,
                           const ExpertLayout& layout)
    : target_(target),
      router_(router),
      cache_(cache),
      layout_(layout),
      most_credit_((1 - target) * kMostTokens * num_moe_layers(layout)) {
  stats_.target = target;
}

std::optional<uint32_t> CacheRouting::best_resident(
    uint32_t layer, std::span<const float> selection) const noexcept {
  std::optional<uint32_t> best;
  float highest = kNone;
  for (uint32_t expert = 0; expert < selection.size(); ++expert) {
    if (selection[expert] > highest &&
        cache_.state({layer, expert}) != ExpertCache::State::kAbsent) {
      highest = selection[expert];
      best = expert;
    }
  }
  return best;
}

void CacheRouting::prefer_resident(uint32_t layer, std::span<const float> scores,
                                   std::span<float> selection,
                                   std::span<RoutedExpert> chosen) noexcept {
  const float best = chosen[0].weight;
  double sum = 0;
  for (const RoutedExpert& one : chosen) sum += proportion(router_, one.weight, best);
  if (!(sum > 0)) return;
  credit_ = std::min(credit_ + (1 - target_), most_credit_);
  stats_.choices += chosen.size();
  stats_.weight += 1;
  for (size_t rank = chosen.size() - 1; rank > 0; --rank) {
    RoutedExpert& one = chosen[rank];
    if (cache_.state({layer, one.expert}) != ExpertCache::State::kAbsent) continue;
    const double weight = proportion(router_, one.weight, best) / sum;
    if (!(weight <= credit_)) continue;
    const std::optional<uint32_t> other = best_resident(layer, selection);
    if (!other) return;
    const double fill = credit_ / most_credit_;
    const double difference = weight - proportion(router_, scores[*other], best) / sum;
    if (!(difference <= fill * fill)) continue;
    credit_ -= weight;
    ++stats_.substitutions;
    stats_.lost_weight += weight;
    stats_.bytes_saved += layout_.place(layer, one.expert).weight_bytes;
    selection[*other] = kNone;
    one = {*other, scores[*other]};
  }
}

}  // namespace edgemoe
