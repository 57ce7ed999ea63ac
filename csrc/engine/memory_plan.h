// The memory plan: what the process will hold, decided before anything large is allocated.
#pragma once

#include <cstdint>
#include <string>

#include "engine/mode.h"
#include "experts/predictor.h"

namespace edgemoe {

// Slots are planned for the usual direct-I/O alignment, or a coarser one where a file asks for it;
// a finer device wastes nothing.
inline constexpr uint64_t kAssumedAlignment = 4096;

struct MemoryPlan {
  Mode mode = Mode::kStream;
  uint64_t budget_bytes = 0;   // the bound of the whole process
  uint64_t process_bytes = 0;  // what the process held before loading (interpreter, tokenizer)
  uint64_t dense_bytes = 0;    // weights that stay in memory
  uint64_t kv_cache_bytes = 0;
  uint64_t scratch_bytes = 0;      // activations of one step, I/O buffers, threads, slack
  uint64_t learned_bytes = 0;      // what is learned about the use of experts
  uint64_t reserved_bytes = 0;     // what the caller takes for itself
  uint64_t expert_pool_bytes = 0;  // slots
  uint64_t least_bytes = 0;        // the smallest budget that runs with these options
  uint64_t least_pool_bytes = 0;   // the smallest pool that runs
  uint64_t most_pool_bytes = 0;    // that the mode has use for
  uint64_t all_experts_bytes = 0;  // pool that would hold every expert
  uint64_t token_expert_bytes =
      0;  // experts that one token uses: below this an LRU cache hits nothing
  uint32_t context = 0;
  uint32_t batch = 0;
  uint32_t num_threads = 0;
  Predictor predictor = Predictor::kRouter;  // in use; see choose_predictor

  uint64_t planned_bytes() const noexcept {
    return process_bytes + dense_bytes + kv_cache_bytes + scratch_bytes + learned_bytes +
           reserved_bytes + expert_pool_bytes;
  }
};

// Bytes and the page tables that map them.
uint64_t with_page_tables(uint64_t bytes) noexcept;
// Sets the budget, the pool to what the rest of the plan leaves of it, at most `most_pool_bytes`.
void share_budget(MemoryPlan& plan, uint64_t budget_bytes, uint64_t most_pool_bytes) noexcept;
// The least budget for which share_budget keeps everything that is not the pool.
uint64_t least_budget(const MemoryPlan& plan) noexcept;

// The plan as the lines that `inspect` prints.
std::string describe(const MemoryPlan& plan);
// Why a budget below least_bytes is refused and what would do, in one line.
std::string describe_shortage(const MemoryPlan& plan);

}  // namespace edgemoe
