// How many of the experts that decoding uses do routers name that are asked early, with the
// residual stream as it is some layers before? Only measured where a run is traced; changes no
// result.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "experts/read_ahead.h"
#include "model/model_spec.h"

namespace edgemoe {

struct StepContext;

class RouterRecall {
 public:
  // By distance in layers; 0 is the control, a layer's own router on its own input.
  static constexpr uint32_t kDistances = ReadAhead::kMaxDistance + 1;
  struct Count {
    uint64_t wanted = 0;  // experts used in layers that were guessed
    uint64_t named = 0;   // of those, among the guesses
  };
  using Counts = std::array<Count, kDistances>;

  static uint64_t bytes(const ModelSpec& spec) noexcept;
  explicit RouterRecall(const ModelSpec& spec);

  // The residual stream where the layer's router reads it, and where later layers' are asked. Steps
  // of several rows are not counted. Requires: in this order, then measure().
  void keep_own(const StepContext& step) noexcept;
  void keep_early(const StepContext& step) noexcept;
  // Behind the layer, whose routing is in work.routed: compares the guesses for it, and asks the
  // routers of later layers. Changes the ahead_ parts of the workspace and work.selection.
  void measure(StepContext& step, uint32_t layer);

  const Counts& counts() const noexcept { return counts_; }

 private:
  std::vector<uint32_t>& guess_of(uint32_t layer, uint32_t distance) noexcept {
    return guesses_[size_t{layer} * kDistances + distance];
  }
  std::vector<float> own_;                      // [width]
  std::vector<float> early_;                    // [width]
  std::vector<std::vector<uint32_t>> guesses_;  // [layers][kDistances][num_used], empty: none
  Counts counts_;
};

}  // namespace edgemoe
