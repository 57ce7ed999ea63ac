// What an engine owns; shared by engine.cpp and session.cpp only.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/should_stop.h"
#include "engine/engine.h"
#include "engine/governor.h"
#include "engine/owned_mutex.h"
#include "model/forward.h"

namespace edgemoe {

struct Engine::Impl {
  // Asks should_stop while it reads and measures. Errors: those of Engine::load.
  Impl(const ModelFile& file, const EngineOptions& options, const MemoryPlan& memory,
       const ShouldStop& should_stop);
  ~Impl();
  void take_up_learned();  // in earlier runs
  // For later runs. Nothing can be computed afterwards.
  void keep_learned() noexcept;

  // The mutex. Reading in the background makes way.
  std::unique_lock<OwnedMutex> lock();
  // The right to run a step. Reading in the background ends for good when the first one is taken.
  std::unique_lock<OwnedMutex> lock_for_step();
  void start_warm_up();
  void read_hottest() noexcept;
  // Between two steps: lets in who asked to be let in, and the governor look at the system.
  // Requires: `lock` holds the mutex.
  void begin_step(std::unique_lock<OwnedMutex>& lock);

  // For a call that takes the mutex: a prompt of many steps lets it in before its next step. Made
  // before the lock and destroyed after it.
  class LetIn {
   public:
    explicit LetIn(Impl& engine) : engine_(engine) { ++engine_.calls_begun; }
    ~LetIn() {
      ++engine_.calls_done;
      engine_.calls_done.notify_all();
    }
    LetIn(const LetIn&) = delete;

   private:
    Impl& engine_;
  };

  ModelFile const& file;  // borrowed: outlives the engine
  EngineOptions options;
  // What set_memory changes of the plan is written under `mutex` and plan_mutex and read under
  // either; all else is constant.
  MemoryPlan plan;
  Governor governor;
  ThreadPool pool;
  std::vector<File> files;
  Compute compute;
  ModelWeights weights;
  EmbeddingTable embedding;
  RopeTable rope;
  PositionBias position_bias;
  Workspace work;
  Regrouper regrouper;
  std::unique_ptr<ExpertStore> store;  // null for a dense model
  std::optional<LearnedRouting> learned;
  KvCache cache;
  std::optional<EventTrace> trace;
  std::optional<RouterRecall> recall;
  std::optional<RouteScript> script;
  std::optional<CacheRouting> cache_routing;
  std::optional<LowCopies> low_copies;
  Model model;

  std::vector<StepRow> rows;  // of the running step
  OwnedMutex mutex;           // one step at a time
  mutable std::mutex plan_mutex;
  std::atomic<uint32_t> calls_begun{0};  // see LetIn; they wrap around
  std::atomic<uint32_t> calls_done{0};
  uint64_t governor_read_ns = 0;
  std::atomic<bool> session_open{false};
  std::atomic<bool> stop_warm_up{false};
  std::atomic<uint32_t> num_waiting{0};  // for the mutex
  bool keeps_learned = true;
  std::thread warm_up;
  uint64_t steps = 0;
  uint64_t tokens = 0;
  uint64_t step_ns = 0;
};

}  // namespace edgemoe
