#include "engine/governor.h"

#include <algorithm>

#include "base/units.h"

namespace edgemoe {
namespace {

constexpr uint64_t kStepShare = 8;      // of the pool, a step
constexpr uint64_t kMostSteps = 4;      // at once, when much is missing
constexpr uint64_t kStallShare = 10;    // of the time, waited for memory
constexpr uint64_t kShortReserves = 4;  // with more than that left, stalls are those of others

}  // namespace

GovernorBounds governor_bounds(const MemoryPlan& plan) noexcept {
  GovernorBounds bounds;
  bounds.most_bytes = plan.expert_pool_bytes;
  bounds.least_bytes =
      std::min(plan.expert_pool_bytes, std::max(plan.least_pool_bytes, plan.token_expert_bytes));
  // The least pool is two slots of the largest size: a step frees one at least.
  bounds.step_bytes = std::max(align_up(plan.expert_pool_bytes / kStepShare, kAssumedAlignment),
                               plan.least_pool_bytes / 2);
  bounds.reserve_bytes = memory_reserve(plan.budget_bytes);
  return bounds;
}

Governor::Governor(const GovernorBounds& bounds) noexcept
    : bounds_(bounds), pool_bytes_(bounds.most_bytes) {}

void Governor::set_bounds(const GovernorBounds& bounds) noexcept {
  const bool shrunk = pool_bytes_ < bounds_.most_bytes;
  bounds_ = bounds;
  if (!shrunk) reset();
  pool_bytes_ = std::clamp(pool_bytes_, bounds.least_bytes, bounds.most_bytes);
}

void Governor::reset() noexcept {
  pool_bytes_ = bounds_.most_bytes;
}

uint64_t Governor::decide(const MemoryPressure& pressure, uint64_t used_bytes,
                          uint64_t now_ns) noexcept {
  const bool pressed = is_pressed(pressure, now_ns);
  if (!last_) quiet_since_ns_ = now_ns;
  last_ = pressure;
  last_ns_ = now_ns;
  const uint64_t quiet_ns = now_ns - quiet_since_ns_;
  if (pressed) {
    quiet_since_ns_ = now_ns;
    shrink(pressure.spare_bytes, used_bytes);
  } else if (pool_bytes_ == bounds_.most_bytes) {
    if (quiet_ns >= kMostQuietNs) {  // what comes now is new
      quiet_ns_ = kLeastQuietNs;
      grew_last_ = false;
    }
  } else if (quiet_ns >= quiet_ns_ && may_grow(pressure.spare_bytes, used_bytes)) {
    quiet_since_ns_ = now_ns;
    pool_bytes_ += std::min(bounds_.step_bytes, bounds_.most_bytes - pool_bytes_);
    grew_last_ = true;
    ++grows_;
  }
  return pool_bytes_;
}

bool Governor::is_pressed(const MemoryPressure& now, uint64_t now_ns) const noexcept {
  const uint64_t reserve = bounds_.reserve_bytes;
  if (now.spare_bytes < reserve / 2) return true;
  // Counters are compared with those of the same group: which one has the least left may change.
  if (!last_ || last_->group_path != now.group_path) return false;
  if (now.kill_events > last_->kill_events) return true;
  if (now.limit_events > last_->limit_events && now.spare_bytes < reserve) return true;
  // Counters begin anew when a group of the same name does.
  const uint64_t stall_us = now.stall_us - std::min(now.stall_us, last_->stall_us);
  const uint64_t elapsed_us = (now_ns - last_ns_) / 1000;
  const bool stalled = stall_us > 0 && stall_us >= elapsed_us / kStallShare;
  return stalled && now.spare_bytes < kShortReserves * reserve;
}

void Governor::shrink(uint64_t spare_bytes, uint64_t used_bytes) noexcept {
  // After a growth that was too much, the next one waits longer.
  if (grew_last_) quiet_ns_ = std::min(2 * quiet_ns_, kMostQuietNs);
  grew_last_ = false;
  // What the pool may have but does not use frees nothing.
  const uint64_t in_use = std::min(pool_bytes_, std::max(used_bytes, bounds_.least_bytes));
  const uint64_t missing = bounds_.reserve_bytes - std::min(bounds_.reserve_bytes, spare_bytes);
  const uint64_t steps = std::clamp(ceil_div(missing, bounds_.step_bytes), uint64_t{1}, kMostSteps);
  const uint64_t freed = std::min(steps * bounds_.step_bytes, in_use - bounds_.least_bytes);
  if (in_use - freed == pool_bytes_) return;  // it is as small as it gets
  pool_bytes_ = in_use - freed;
  ++shrinks_;
}

bool Governor::may_grow(uint64_t spare_bytes, uint64_t used_bytes) const noexcept {
  // What was granted before and is not used yet is as good as taken.
  const uint64_t granted = pool_bytes_ - std::min(pool_bytes_, used_bytes);
  return spare_bytes >= bounds_.reserve_bytes + granted + bounds_.step_bytes;
}

}  // namespace edgemoe
