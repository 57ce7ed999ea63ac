#include "model/step_recording.h"

#include <algorithm>

namespace edgemoe {

EventTrace::Capacity step_capacity(const ModelSpec& spec, size_t batch) noexcept {
  const auto num_moe_layers = static_cast<size_t>(
      std::count_if(spec.layers.begin(), spec.layers.end(),
                    [](const LayerSpec& layer) { return layer.ffn.kind == FfnKind::kMoe; }));
  return {batch * num_moe_layers * spec.router.num_used, spec.layers.size()};
}

namespace {

// The number that the layer asks for to have the expert: its own, or that of its low copy.
uint32_t demanded_number(const Workspace& work, uint32_t expert, const ExpertLayout& layout) {
  if (!layout.has_low_copies()) return expert;
  for (const ExpertDemand& demand : work.needed_experts) {
    if (layout.expert_of(demand.expert) == expert) return demand.expert;
  }
  return expert;
}

}  // namespace

void record_routing(const StepContext& step, uint32_t layer, const ExpertStore& store) noexcept {
  if (step.trace == nullptr) return;
  const Workspace& work = step.work;
  const size_t used = step.spec.router.num_used;
  for (size_t i = 0; i < step.rows.size() * used; ++i) {
    const uint32_t expert = work.routed[i].expert;
    RoutingEvent event;
    event.position = step.rows[i / used].position;
    event.layer = static_cast<uint16_t>(layer);
    event.rank = static_cast<uint16_t>(i % used);
    event.expert = expert;
    event.weight = work.routed[i].weight;
    const uint32_t number = demanded_number(work, expert, store.layout());
    const bool is_resident = store.cache().state({layer, number}) == ExpertCache::State::kResident;
    event.resident = is_resident ? 1 : 0;
    // All rows of the step share one read; the first of them has it in its event.
    const bool is_first = work.place_of_routed[i] == work.first_of_expert[expert];
    if (!is_resident && is_first) {
      event.bytes_read = store.layout().place(layer, number).weight_bytes;
    }
    step.trace->add_routing(event);
  }
}

}  // namespace edgemoe
