#include "model/low_copies.h"

#include <algorithm>

namespace edgemoe {

LowCopies::LowCopies(double threshold, const ExpertCache& cache, const ExpertLayout& layout)
    : threshold_(threshold), cache_(cache), layout_(layout) {
  stats_.threshold = threshold;
}

uint32_t LowCopies::number_of(uint32_t layer, uint32_t expert) noexcept {
  if (cache_.state({layer, expert}) != ExpertCache::State::kAbsent) return expert;
  const uint32_t low = layout_.low_copy_of(layer, expert);
  if (low != expert && cache_.state({layer, low}) == ExpertCache::State::kAbsent) {
    const uint64_t full_bytes = layout_.place(layer, expert).weight_bytes;
    stats_.bytes_saved += full_bytes - std::min(full_bytes, layout_.place(layer, low).weight_bytes);
  }
  return low;
}

void LowCopies::choose(uint32_t layer, std::span<const RoutedExpert> routed,
                       std::span<ExpertDemand> needed) noexcept {
  double sum = 0;
  for (const RoutedExpert& one : routed) sum += static_cast<double>(one.weight);
  if (!(sum > 0)) return;
  stats_.choices += routed.size();
  stats_.weight += 1;
  double before = 0;
  for (const RoutedExpert& one : routed) {
    const bool counts_little = before > threshold_ * sum;
    before += static_cast<double>(one.weight);
    if (!counts_little) continue;
    const uint32_t number = number_of(layer, one.expert);
    if (number == one.expert) continue;
    ++stats_.low_choices;
    stats_.low_weight += static_cast<double>(one.weight) / sum;
    const auto demand = std::find_if(needed.begin(), needed.end(), [&](const ExpertDemand& wanted) {
      return wanted.expert == one.expert;
    });
    if (demand != needed.end()) demand->expert = number;
  }
}

}  // namespace edgemoe
