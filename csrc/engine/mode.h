// Ways to run a model that does not fit: the engine's own, and the baselines that the paper
// (arXiv 2308.14352) compares with. A mode changes times and memory, never results.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "experts/read_ahead.h"
#include "weights/expert_layout.h"

namespace edgemoe {

enum class Mode : uint8_t {
  kStream,        // experts are cached, and guesses read ahead where that pays
  kResident,      // all experts are read at load (IO-FREE)
  kOnDemand,      // read when the router has chosen, and dropped after use (IO-EXP)
  kUnbuffered,    // like kOnDemand, with guesses read ahead: prediction without a cache
  kLayerByLayer,  // every expert of a layer is read while the layer before computes (like STI)
};

struct ModeRules {
  Mode mode;
  std::string_view name;
  bool keeps;         // experts stay in the pool after use
  bool guesses;       // routers of later layers are asked early, as the preload policy says
  bool whole_layers;  // every expert of a layer is read, whatever the router says
};
std::span<const ModeRules> modes() noexcept;
const ModeRules& rules_of(Mode mode) noexcept;
// Errors: kArgument for an unknown name, listing the known ones.
Mode mode_from_name(std::string_view name);

// The policy that a mode runs with when the user chose `preload`. Errors: kArgument for any but
// kAuto where the mode itself decides what is read ahead.
PreloadPolicy preload_of(Mode mode, PreloadPolicy preload);

// Bytes that the expert pool has at least and at most. Requires: a layout with experts.
struct PoolBounds {
  uint64_t least = 0;
  uint64_t most = 0;
};
PoolBounds pool_bounds(Mode mode, const ExpertLayout& layout, uint32_t num_used,
                       uint32_t look_ahead);

}  // namespace edgemoe
