#include "experts/hottest_experts.h"

#include <algorithm>

namespace edgemoe {

std::vector<ExpertId> hottest_experts(const ExpertCache& cache, const ExpertLayout& layout) {
  std::vector<ExpertId> hottest;
  for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
    for (uint32_t expert = 0; layout.is_moe(layer) && expert < layout.num_experts(); ++expert) {
      const ExpertId id{layer, expert};
      if (cache.history(id).popularity > kUnseenPopularity) hottest.push_back(id);
    }
  }
  std::stable_sort(hottest.begin(), hottest.end(), [&](ExpertId a, ExpertId b) {
    return cache.history(a).popularity > cache.history(b).popularity;
  });
  uint64_t bytes = 0;
  const auto fits = [&](ExpertId id) {
    bytes += layout.place(id.layer, id.expert).slot_bytes;
    return bytes <= cache.pool_bytes();
  };
  hottest.erase(std::find_if_not(hottest.begin(), hottest.end(), fits), hottest.end());
  std::sort(hottest.begin(), hottest.end(), [](ExpertId a, ExpertId b) {
    return a.layer != b.layer ? a.layer < b.layer : a.expert < b.expert;
  });
  return hottest;
}

}  // namespace edgemoe
