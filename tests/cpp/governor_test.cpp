#include "engine/governor.h"

#include "base/units.h"
#include "test.h"

namespace edgemoe {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kPool = 8 * kGiB;
constexpr uint64_t kStep = kGiB;
constexpr uint64_t kLeast = 2 * kGiB;
constexpr uint64_t kReserve = 512 * kMiB;
constexpr GovernorBounds kBounds{kPool, kLeast, kStep, kReserve};

// A governor that is asked every second, about a pool that is always full.
class Clocked {
 public:
  uint64_t after(uint64_t seconds, const MemoryPressure& pressure) {
    for (uint64_t i = 0; i < seconds; ++i) {
      now_ns_ += kSecond;
      governor_.decide(pressure, governor_.pool_bytes(), now_ns_);
    }
    return governor_.pool_bytes();
  }
  Governor& governor() { return governor_; }

 private:
  Governor governor_{kBounds};
  uint64_t now_ns_ = kSecond;
};

MemoryPressure with_spare(uint64_t bytes) {
  MemoryPressure pressure;
  pressure.spare_bytes = bytes;
  return pressure;
}

TEST("a pool holds while there is no pressure, with as little left as the budget leaves") {
  Clocked clocked;
  CHECK_EQUAL(clocked.after(1000, with_spare(kReserve)), kPool);
  CHECK_EQUAL(clocked.after(1000, with_spare(kReserve / 2)), kPool);
  CHECK_EQUAL(clocked.governor().shrinks(), 0u);
}

TEST("a pool shrinks by a step at each reading that finds too little left, down to its floor") {
  Clocked clocked;
  CHECK_EQUAL(clocked.after(1, with_spare(kReserve / 4)), kPool - kStep);
  CHECK_EQUAL(clocked.after(2, with_spare(kReserve / 4)), kPool - 3 * kStep);
  CHECK_EQUAL(clocked.after(100, with_spare(0)), kLeast);
  CHECK_EQUAL(clocked.governor().shrinks(), 6u);
}

TEST("several steps are taken at once when much is missing") {
  constexpr uint64_t kSmallStep = 100 * kMiB;
  Governor governor({kPool, kLeast, kSmallStep, kReserve});
  CHECK_EQUAL(governor.decide(with_spare(kReserve - 250 * kMiB), kPool, kSecond), kPool);
  CHECK_EQUAL(governor.decide(with_spare(kReserve - 260 * kMiB), kPool, 2 * kSecond),
              kPool - 3 * kSmallStep);
  CHECK_EQUAL(governor.shrinks(), 1u);
}

TEST("what a pool may have but does not use is taken first") {
  Governor governor(kBounds);
  CHECK_EQUAL(governor.decide(with_spare(0), 5 * kGiB, kSecond), 4 * kGiB);
  CHECK_EQUAL(governor.decide(with_spare(0), kMiB, 2 * kSecond), kLeast);
}

TEST("stalls count when they take a tenth of the time and memory is short") {
  for (const uint64_t spare : {kReserve, 100 * kReserve}) {
    Clocked clocked;
    MemoryPressure pressure = with_spare(spare);
    pressure.stall_us = 77'000'000;  // before we looked
    CHECK_EQUAL(clocked.after(5, pressure), kPool);
    pressure.stall_us += 90'000;
    CHECK_EQUAL(clocked.after(1, pressure), kPool);
    pressure.stall_us += 110'000;
    CHECK_EQUAL(clocked.after(1, pressure), spare == kReserve ? kPool - kStep : kPool);
    pressure.stall_us = 0;  // of another group
    CHECK_EQUAL(clocked.after(1, pressure), spare == kReserve ? kPool - kStep : kPool);
  }
}

TEST("running into the limit counts when memory is short, being out of memory always") {
  Clocked clocked;
  MemoryPressure pressure = with_spare(2 * kReserve);
  clocked.after(1, pressure);
  pressure.limit_events += 1000;  // a group full of page cache
  CHECK_EQUAL(clocked.after(1, pressure), kPool);
  pressure.spare_bytes = kReserve - 1;
  CHECK_EQUAL(clocked.after(1, pressure), kPool);
  pressure.limit_events += 1;
  CHECK_EQUAL(clocked.after(1, pressure), kPool - kStep);
  pressure.spare_bytes = 100 * kReserve;
  pressure.kill_events += 1;
  CHECK_EQUAL(clocked.after(1, pressure), kPool - 2 * kStep);
}

TEST("counters of another group are not compared with those of the group before") {
  Clocked clocked;
  MemoryPressure pressure = with_spare(kReserve - 1);
  pressure.group_path = "/inner";
  clocked.after(1, pressure);
  pressure.group_path = "/outer";
  pressure.limit_events = 10;
  pressure.kill_events = 10;
  CHECK_EQUAL(clocked.after(2, pressure), kPool);
  pressure.kill_events += 1;
  CHECK_EQUAL(clocked.after(1, pressure), kPool - kStep);
}

TEST("a pool grows back in steps of quiet time, never beyond the plan") {
  Clocked clocked;
  clocked.after(3, with_spare(0));
  CHECK_EQUAL(clocked.after(9, with_spare(kPool)), kPool - 3 * kStep);
  CHECK_EQUAL(clocked.after(1, with_spare(kPool)), kPool - 2 * kStep);
  CHECK_EQUAL(clocked.after(10, with_spare(kPool)), kPool - kStep);
  CHECK_EQUAL(clocked.after(1000, with_spare(kPool)), kPool);
  CHECK_EQUAL(clocked.governor().grows(), 3u);
}

TEST("a pool does not grow into the reserve, nor by what it was granted and has not used") {
  Governor governor(kBounds);
  governor.decide(with_spare(0), kPool, kSecond);
  CHECK_EQUAL(governor.decide(with_spare(kReserve + kStep - 1), kPool - kStep, 100 * kSecond),
              kPool - kStep);
  CHECK_EQUAL(governor.decide(with_spare(kReserve + kStep), kPool - 2 * kStep, 200 * kSecond),
              kPool - kStep);
  CHECK_EQUAL(governor.decide(with_spare(kReserve + kStep), kPool - kStep, 300 * kSecond), kPool);
}

TEST("a growth that was too much makes the next one wait longer") {
  Clocked clocked;
  clocked.after(1, with_spare(0));
  CHECK_EQUAL(clocked.after(10, with_spare(kPool)), kPool);
  clocked.after(1, with_spare(0));
  CHECK_EQUAL(clocked.after(19, with_spare(kPool)), kPool - kStep);
  CHECK_EQUAL(clocked.after(1, with_spare(kPool)), kPool);
  clocked.after(1000, with_spare(kPool));  // long enough to forget
  clocked.after(1, with_spare(0));
  CHECK_EQUAL(clocked.after(10, with_spare(kPool)), kPool);
}

TEST("a new plan moves the bounds, and a pool that is shrunk stays so") {
  Governor governor(kBounds);
  governor.set_bounds({2 * kPool, kLeast, kStep, kReserve});
  CHECK_EQUAL(governor.pool_bytes(), 2 * kPool);
  governor.decide(with_spare(0), 2 * kPool, kSecond);
  governor.set_bounds({3 * kPool, kLeast, kStep, kReserve});
  CHECK_EQUAL(governor.pool_bytes(), 2 * kPool - kStep);
  governor.set_bounds({kStep, kStep / 2, kStep, kReserve});
  CHECK_EQUAL(governor.pool_bytes(), kStep);
}

TEST("the bounds of a plan keep one token's experts, and a pool that is smaller than that") {
  MemoryPlan plan;
  plan.budget_bytes = 4 * kGiB;
  plan.least_pool_bytes = 20 * kMiB;
  plan.token_expert_bytes = 300 * kMiB;
  plan.expert_pool_bytes = 2 * kGiB;
  GovernorBounds bounds = governor_bounds(plan);
  CHECK_EQUAL(bounds.least_bytes, 300 * kMiB);
  CHECK_EQUAL(bounds.step_bytes, 256 * kMiB);
  plan.expert_pool_bytes = 40 * kMiB;
  bounds = governor_bounds(plan);
  CHECK_EQUAL(bounds.least_bytes, 40 * kMiB);
  CHECK_EQUAL(bounds.step_bytes, 10 * kMiB);
  Governor governor(bounds);
  CHECK_EQUAL(governor.decide(with_spare(0), 40 * kMiB, kSecond), 40 * kMiB);
  CHECK_EQUAL(governor.shrinks(), 0u);
}

}  // namespace
}  // namespace edgemoe
