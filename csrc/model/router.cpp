#include "model/router.h"

#include <cmath>
#include <limits>

#include "base/portable_math.h"

namespace edgemoe {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();
constexpr float kLeastWeightSum = 6.103515625e-5f;  // the smallest normal binary16

float sqrt_softplus(float x) noexcept {
  return static_cast<float>(std::sqrt(portable_softplus(static_cast<double>(x))));
}

void score(RouterScore kind, const kernels::KernelTable& table, std::span<float> logits) noexcept {
  switch (kind) {
    case RouterScore::kSoftmax:
      table.softmax(logits.data(), logits.size());
      return;
    case RouterScore::kSigmoid:
      table.sigmoid(logits.data(), logits.size());
      return;
    case RouterScore::kSqrtSoftplus:
      for (float& x : logits) x = sqrt_softplus(x);
      return;
    case RouterScore::kSoftmaxTopK:  // the softmax comes after the choice
      return;
  }
}

// Ranks a group by the sum of its two best selection scores.
float group_score(std::span<const float> group) noexcept {
  float best = kExcluded;
  float second = kExcluded;
  for (const float value : group) {
    if (value > best) {
      second = best;
      best = value;
    } else if (value > second) {
      second = value;
    }
  }
  return group.size() == 1 ? best : best + second;
}

// Excludes all but the num_groups_used best groups.
void keep_best_groups(const RouterSpec& spec, std::span<float> selection) noexcept {
  const size_t size = selection.size() / spec.num_groups;
  const auto group = [&](size_t index) { return selection.subspan(index * size, size); };
  for (uint32_t dropped = spec.num_groups_used; dropped < spec.num_groups; ++dropped) {
    size_t worst = spec.num_groups;
    float worst_score = 0;
    for (size_t index = 0; index < spec.num_groups; ++index) {
      if (group(index)[0] == kExcluded && group_score(group(index)) == kExcluded) continue;
      const float value = group_score(group(index));
      // Among equals the last one goes, so that ties keep the lower numbers.
      if (worst == spec.num_groups || value <= worst_score) {
        worst = index;
        worst_score = value;
      }
    }
    if (worst == spec.num_groups) return;
    for (float& value : group(worst)) value = kExcluded;
  }
}

// Takes the best remaining expert out of `selection`.
uint32_t take_best(std::span<float> selection, std::span<const RoutedExpert> taken) noexcept {
  const auto is_taken = [&](uint32_t expert) {
    for (const RoutedExpert& other : taken) {
      if (other.expert == expert) return true;
    }
    return false;
  };
  uint32_t best = static_cast<uint32_t>(selection.size());
  float best_score = kExcluded;
  for (uint32_t expert = 0; expert < selection.size(); ++expert) {
    if (selection[expert] > best_score) {
      best_score = selection[expert];
      best = expert;
    }
  }
  if (best < selection.size()) {
    selection[best] = kExcluded;
    return best;
  }
  // Everything left is NaN or excluded: the lowest number that is still free.
  for (best = 0; is_taken(best);) ++best;
  return best;
}

void scale_weights(const RouterSpec& spec, std::span<RoutedExpert> chosen) noexcept {
  if (spec.renormalise) {
    float sum = 0;
    for (const RoutedExpert& one : chosen) sum += one.weight;
    if (!(sum > kLeastWeightSum)) sum = kLeastWeightSum;
    for (RoutedExpert& one : chosen) one.weight /= sum;
  }
  for (RoutedExpert& one : chosen) one.weight *= spec.weight_scale;
}

// Softmax over the chosen logits, in rank order.
void softmax_chosen(std::span<RoutedExpert> chosen) noexcept {
  const float largest = chosen[0].weight;
  double sum = 0;
  for (RoutedExpert& one : chosen) {
    const double difference = static_cast<double>(one.weight) - static_cast<double>(largest);
    const double e = difference > -700.0 ? portable_exp(difference) : 0.0;
    one.weight = static_cast<float>(e);
    sum += e;
  }
  for (RoutedExpert& one : chosen) one.weight = static_cast<float>(one.weight / sum);
}

}  // namespace

void choose_experts(const RouterSpec& spec, const kernels::KernelTable& table,
                    std::span<float> logits, const float* selection_bias,
                    std::span<float> selection, std::span<RoutedExpert> chosen) noexcept {
  score(spec.score, table, logits);
  for (size_t expert = 0; expert < logits.size(); ++expert) {
    const float bias = selection_bias == nullptr ? 0.0f : selection_bias[expert];
    selection[expert] = logits[expert] + bias;
    if (std::isnan(selection[expert])) selection[expert] = kExcluded;
  }
  if (spec.num_groups > 1) keep_best_groups(spec, selection);
  for (size_t rank = 0; rank < chosen.size(); ++rank) {
    const uint32_t expert = take_best(selection, chosen.first(rank));
    chosen[rank] = {expert, logits[expert]};
  }
}

void weigh_experts(const RouterSpec& spec, std::span<RoutedExpert> chosen) noexcept {
  if (spec.score == RouterScore::kSoftmaxTopK) softmax_chosen(chosen);
  scale_weights(spec, chosen);
}

void route(const RouterSpec& spec, const kernels::KernelTable& table, std::span<float> logits,
           const float* selection_bias, std::span<float> selection,
           std::span<RoutedExpert> chosen) noexcept {
  choose_experts(spec, table, logits, selection_bias, selection, chosen);
  weigh_experts(spec, chosen);
}

}  // namespace edgemoe
