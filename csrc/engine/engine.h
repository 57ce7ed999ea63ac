// A loaded model. Owns the threads, the files, the expert store and the dense weights.
// One step at a time: calls from several threads are serialised. A call by the thread that
// computes, which only a signal handler in should_stop can make, is refused with kArgument; stats
// and memory_plan answer it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/should_stop.h"
#include "engine/model_file.h"
#include "engine/owned_mutex.h"
#include "experts/event_trace.h"
#include "experts/expert_store.h"
#include "model/cache_routing.h"
#include "model/expert_observer.h"
#include "model/low_copies.h"
#include "model/route_script.h"
#include "model/router_recall.h"

namespace edgemoe {

struct EngineStats {
  ExpertStats experts;  // of prefill and decode
  ExpertStats prefill;
  ExpertStats decode;
  ExpertStats loading;  // apart: no token needed it
  ReadAheadStats read_ahead;
  ReadStats reads;
  CacheRoutingStats cache_routing;  // nothing without EngineOptions::lossy_routing
  LowCopyStats low_copies;          // nothing without EngineOptions::lossy_low_copy
  std::vector<LayerStats> layers;   // empty for a dense model
  uint64_t steps = 0;
  uint64_t tokens = 0;             // rows evaluated
  uint64_t step_ns = 0;            // time in forward passes
  uint64_t expert_pool_bytes = 0;  // what the pool may hold now
  uint64_t pool_shrinks = 0;       // by the governor
  uint64_t pool_grows = 0;
  uint64_t resident_bytes = 0;       // of the process now (VmRSS)
  uint64_t peak_resident_bytes = 0;  // VmHWM
};

// See EventTrace.
struct TraceEvents {
  std::vector<RoutingEvent> routing;
  std::vector<LayerEvent> layers;
  bool complete = true;
};

class Engine {
 public:
  // Loads the dense weights and sets the store up. Errors: those of ModelFile; kBudget with the
  // whole plan in the message when the budget is below the least; kArgument for options that do not
  // go together; kIo; kFormat for what EngineOptions::verify finds; kCancelled: should_stop is
  // asked every few MiB and while the device is measured.
  static std::unique_ptr<Engine> load(const ModelFile& file, const EngineOptions& options,
                                      const ShouldStop& should_stop = {});
  ~Engine();

  // Reads all experts if the plan has memory for all of them, else does nothing: without it an
  // expert is read when it is first used. Asks should_stop once per expert. Errors: kIo,
  // kCancelled.
  void load_all_experts(const ShouldStop& should_stop);

  // Shows experts [first, first + count) of a layer to `visit`, in the in-memory layout, in the
  // order in which they arrive; `visit` may use the threads. should_stop is asked before each.
  // Errors: kArgument for experts that the model lacks, kIo, kCancelled.
  void visit_experts(uint32_t layer, uint32_t first, uint32_t count,
                     const std::function<void(ThreadPool&, const ReadyExpert&)>& visit,
                     const ShouldStop& should_stop);

  const ModelSpec& spec() const noexcept;
  MemoryPlan memory_plan() const;
  // Changes the budget to what EngineOptions::memory and memory_bytes mean; the pool takes the
  // difference, everything else stays as it was loaded. From any thread: takes effect when it
  // returns, which is at the next step boundary. Returns the new plan; its least_bytes is what this
  // engine can be changed to. Errors: kBudget with the plan when the budget is below that.
  MemoryPlan set_memory(EngineOptions::Memory memory, uint64_t bytes);
  // From any thread; waits for the end of the running step at most.
  EngineStats stats() const;
  // The events since the last call, for an engine loaded with EngineOptions::trace. There is room
  // for those of one step (of memory_plan().batch rows): take them after each, or the rest is
  // dropped and they are not complete. Errors: kArgument without that option.
  TraceEvents take_trace();

  // Of the tokens decoded since the engine was loaded with EngineOptions::trace; else zeros.
  RouterRecall::Counts router_recall() const;

  // For benchmarks: from now on the script chooses the experts, not the router. Errors: kArgument
  // with EngineOptions::lossy_routing or lossy_low_copy, which need the router's scores.
  void set_routing(RouteScript script);
  // The step of the script that the session's position 0 takes; nothing without a script.
  void start_routing_at(uint64_t step);

  // From now on `observer` (null: nobody) sees what the experts of each step compute. Borrowed.
  void observe_experts(ExpertObserver* observer);

  // Bytes per second of sequential reads of the dense weights by the engine's threads, now; 0 when
  // there are too few of them to leave the caches.
  double measure_memory();

  // What is learned in this run is not kept for later ones: a benchmark is no real use.
  void keep_nothing_learned();

  const char* level() const noexcept;  // of the kernels
  std::string_view io_backend() const noexcept;

 private:
  friend class Session;
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One sequence of tokens with its KV cache, behind an encoder that of the decoder. An engine has
// memory for one session at a time.
class Session {
 public:
  // Errors: kArgument when the engine's session is still in use.
  explicit Session(Engine& engine);
  ~Session();
  Session(const Session&) = delete;

  // should_stop is asked once per layer and step.

  // Appends tokens and evaluates them in batches of memory_plan().batch rows. After an error (kIo,
  // kCancelled) the sequence is as long as before the call and the session stays usable.
  // Errors: kArgument for a token outside the vocabulary, or when the context would overflow (says
  // how long it is and what to do). A single token counts as generated unless `phase` says that it
  // is a prompt's.
  void evaluate(std::span<const int32_t> tokens, const ShouldStop& should_stop,
                std::optional<Phase> phase = std::nullopt);

  // For a model with an encoder: it reads `tokens`, the prompt, and a new sequence begins, which
  // the decoder evaluates; before that it cannot. After an error there is no prompt. Errors:
  // kArgument for a model without one, a token outside the vocabulary or more tokens than the
  // context; kIo, kCancelled.
  void encode(std::span<const int32_t> tokens, const ShouldStop& should_stop);

  // Evaluates `tokens` as sequences of `window` tokens (the last one may be shorter) that know
  // nothing of each other, several in one step where the batch has room. What the session held is
  // forgotten, and no logits can be asked for. Errors: kArgument for a token outside the vocabulary
  // or a window longer than the context; kIo, kCancelled.
  void evaluate_windows(std::span<const int32_t> tokens, uint32_t window,
                        const ShouldStop& should_stop);

  // Rows whose logits can still be asked for: those of the last batch of the last evaluate (all its
  // tokens when they were at most memory_plan().batch).
  uint32_t num_rows() const noexcept;
  // Computes the logits of rows [first, first + count) of those into `out`, [count, vocab] floats.
  // The last row (num_rows() - 1) belongs to the newest token. Errors: kArgument out of range.
  void logits(uint32_t first, uint32_t count, std::span<float> out);

  uint32_t position() const noexcept;  // tokens in the sequence
  // Forgets everything from `position` on. With recurrent layers the next evaluate starts by
  // evaluating what is left once more, unless that is nothing. Errors: kArgument beyond the end.
  void rewind(uint32_t position);
  // Evaluates now what the next evaluate would start with after a rewind. Errors: those of
  // evaluate.
  void catch_up(const ShouldStop& should_stop);

 private:
  // Rows [0, position_) once more: the state of recurrent layers is that of other tokens.
  void replay(std::unique_lock<OwnedMutex>& lock, const ShouldStop& should_stop);
  void run(std::unique_lock<OwnedMutex>& lock, std::span<const int32_t> tokens, uint32_t position,
           Phase phase, const ShouldStop& should_stop);

  Engine& engine_;
  std::vector<int32_t> tokens_;  // of the sequence, where a state cannot be taken back
  bool state_is_current_ = true;
  bool is_replay_ = false;  // rows that were counted before
  uint32_t position_ = 0;
  uint32_t num_rows_ = 0;
  OwnedMutex mutex_;  // one evaluate of this sequence at a time, however many steps it has
};

}  // namespace edgemoe
