// Changes of a loaded engine's memory: by its owner (set_memory), and by the governor.
#include <chrono>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/engine_parts.h"

namespace edgemoe {
namespace {

constexpr uint64_t kReadingNs = 250'000'000;  // between two looks at the system

uint64_t now_ns() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

bool is_governed(const EngineOptions& options) noexcept {
  if (options.governing != EngineOptions::Governing::kAuto) {
    return options.governing == EngineOptions::Governing::kOn;
  }
  return options.memory == EngineOptions::Memory::kAuto;
}

}  // namespace

void Engine::Impl::begin_step(std::unique_lock<OwnedMutex>& lock) {
  // As many as wait now: those that come later wait for a step, or nothing would ever be computed
  // while somebody asks all the time.
  const uint32_t begun = calls_begun;
  const auto are_left = [begun](uint32_t done) { return static_cast<int32_t>(begun - done) > 0; };
  if (are_left(calls_done)) {
    lock.unlock();
    for (uint32_t done = calls_done; are_left(done); done = calls_done) calls_done.wait(done);
    lock.lock();
  }
  if (!store || !is_governed(options)) return;
  const uint64_t now = now_ns();
  if (governor_read_ns != 0 && now - governor_read_ns < kReadingNs) return;
  governor_read_ns = now;
  const uint64_t before = governor.pool_bytes();
  const MemoryPressure pressure = memory_pressure(options.system_root);
  const uint64_t wanted = governor.decide(pressure, store->cache().used_bytes(), now);
  if (wanted != before) store->set_pool_bytes(wanted);
}

MemoryPlan Engine::set_memory(EngineOptions::Memory memory, uint64_t bytes) {
  Impl& engine = *impl_;
  const Impl::LetIn let_in(engine);
  const auto lock = engine.lock_for_step();
  EngineOptions options = engine.options;
  options.memory = memory;
  options.memory_bytes = bytes;
  MemoryPlan plan = engine.plan;
  plan.least_bytes = least_budget(plan);
  const uint64_t most = engine.store ? engine.store->max_pool_bytes() : 0;
  share_budget(plan, budget_bytes(options, plan.least_bytes), std::min(plan.most_pool_bytes, most));
  if (plan.budget_bytes < plan.least_bytes) {
    throw Error(ErrorCode::kBudget,
                describe_shortage(plan) + "; what the model was loaded with stays in force");
  }
  engine.options = options;
  {
    const std::lock_guard plan_lock(engine.plan_mutex);
    engine.plan.budget_bytes = plan.budget_bytes;
    engine.plan.least_bytes = plan.least_bytes;
    engine.plan.expert_pool_bytes = plan.expert_pool_bytes;
  }
  engine.governor.set_bounds(governor_bounds(plan));
  if (!is_governed(options)) engine.governor.reset();
  if (engine.store) engine.store->set_pool_bytes(engine.governor.pool_bytes());
  return plan;
}

MemoryPlan Engine::memory_plan() const {
  const std::lock_guard lock(impl_->plan_mutex);
  return impl_->plan;
}

}  // namespace edgemoe
