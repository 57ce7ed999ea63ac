// Decides how large the expert pool may be while others need memory: it shrinks in steps while
// there is pressure and grows back in steps when there is none. Pure: readings and the time are
// passed in.
//
// Pressure is any of
//   - less than half of the reserve is left,
//   - tasks waited for memory for a tenth of the time since the last reading, and little is left,
//   - the control group ran into its limit, and less than the reserve is left,
//   - the control group was out of memory.
// Stalls and limits count only when memory is short, because a group that is full of page cache
// runs into its limit all the time, and the stalls of a machine may be those of another group.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/memory_plan.h"
#include "engine/system_memory.h"

namespace edgemoe {

struct GovernorBounds {
  uint64_t most_bytes = 0;   // the pool of the plan
  uint64_t least_bytes = 0;  // the experts of one token: with fewer every token reads nearly all
  uint64_t step_bytes = 0;
  uint64_t reserve_bytes = 0;  // should be left for everybody else
};
GovernorBounds governor_bounds(const MemoryPlan& plan) noexcept;

class Governor {
 public:
  explicit Governor(const GovernorBounds& bounds) noexcept;

  // For a new plan. A pool that is shrunk stays so, and grows as before.
  void set_bounds(const GovernorBounds& bounds) noexcept;
  // Without pressure any more: the pool of the plan.
  void reset() noexcept;

  // The bytes that the pool may have from now on, of which `used_bytes` hold experts.
  uint64_t decide(const MemoryPressure& pressure, uint64_t used_bytes, uint64_t now_ns) noexcept;

  uint64_t pool_bytes() const noexcept { return pool_bytes_; }
  uint64_t shrinks() const noexcept { return shrinks_; }
  uint64_t grows() const noexcept { return grows_; }

  static constexpr uint64_t kLeastQuietNs = 10'000'000'000;  // without pressure, before each growth
  static constexpr uint64_t kMostQuietNs = 320'000'000'000;

 private:
  bool is_pressed(const MemoryPressure& now, uint64_t now_ns) const noexcept;
  void shrink(uint64_t spare_bytes, uint64_t used_bytes) noexcept;
  bool may_grow(uint64_t spare_bytes, uint64_t used_bytes) const noexcept;

  GovernorBounds bounds_;
  uint64_t pool_bytes_;
  std::optional<MemoryPressure> last_;
  uint64_t last_ns_ = 0;
  uint64_t quiet_since_ns_ = 0;  // the last pressure or growth
  uint64_t quiet_ns_ = kLeastQuietNs;
  bool grew_last_ = false;
  uint64_t shrinks_ = 0;
  uint64_t grows_ = 0;
};

}  // namespace edgemoe
