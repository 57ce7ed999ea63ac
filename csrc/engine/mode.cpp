#include "engine/mode.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "experts/expert_store.h"

namespace edgemoe {
namespace {

// In the order of the enumeration.
constexpr ModeRules kModes[] = {
    {Mode::kStream, "stream", true, true, false},
    {Mode::kResident, "resident", true, false, false},
    {Mode::kOnDemand, "on-demand", false, false, false},
    {Mode::kUnbuffered, "unbuffered", false, true, false},
    {Mode::kLayerByLayer, "layer-by-layer", false, false, true},
};

uint64_t largest_layer_bytes(const ExpertLayout& layout) {
  uint64_t largest = 0;
  for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
    uint64_t bytes = 0;
    for (uint32_t expert = 0; layout.is_moe(layer) && expert < layout.num_experts(); ++expert) {
      bytes += layout.place(layer, expert).slot_bytes;
    }
    largest = std::max(largest, bytes);
  }
  return largest;
}

// What a mode that keeps nothing has use for.
uint64_t working_bytes(Mode mode, const ExpertLayout& layout, uint32_t num_used,
                       uint32_t look_ahead) {
  if (mode == Mode::kLayerByLayer) return 2 * largest_layer_bytes(layout);
  // As many as a token uses, of the running layer and of those that are guessed. A batch that uses
  // more works in waves.
  const uint64_t num_layers = mode == Mode::kUnbuffered ? 1 + look_ahead : 1;
  return num_layers * num_used * layout.max_slot_bytes();
}

}  // namespace

std::span<const ModeRules> modes() noexcept {
  return kModes;
}

const ModeRules& rules_of(Mode mode) noexcept {
  return kModes[static_cast<size_t>(mode)];
}

Mode mode_from_name(std::string_view name) {
  std::string known;
  for (const ModeRules& rules : kModes) {
    if (rules.name == name) return rules.mode;
    known += (known.empty() ? "" : ", ") + std::string(rules.name);
  }
  throw Error(ErrorCode::kArgument, "unknown mode '" + std::string(name) + "'; known: " + known);
}

PreloadPolicy preload_of(Mode mode, PreloadPolicy preload) {
  const ModeRules& rules = rules_of(mode);
  if (rules.guesses) return preload;
  if (preload != PreloadPolicy::kAuto) {
    throw Error(ErrorCode::kArgument,
                "mode " + std::string(rules.name) +
                    " itself decides what is read ahead; leave the preload policy out, or choose "
                    "mode stream or unbuffered");
  }
  return rules.whole_layers ? PreloadPolicy::kAlways : PreloadPolicy::kNone;
}

PoolBounds pool_bounds(Mode mode, const ExpertLayout& layout, uint32_t num_used,
                       uint32_t look_ahead) {
  const uint64_t least = ExpertStore::min_pool_bytes(layout);
  const uint64_t all = std::max(layout.total_slot_bytes(), least);
  if (mode == Mode::kStream) return {least, all};
  if (mode == Mode::kResident) return {all, all};
  const uint64_t bytes = std::clamp(working_bytes(mode, layout, num_used, look_ahead), least, all);
  return {bytes, bytes};
}

}  // namespace edgemoe
