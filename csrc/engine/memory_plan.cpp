#include "engine/memory_plan.h"

#include "base/units.h"

namespace edgemoe {

std::string describe(const MemoryPlan& plan) {
  const auto line = [](const char* label, uint64_t bytes) {
    return std::string("  ") + label + format_bytes(bytes) + "\n";
  };
  std::string text = line("process before loading  ", plan.process_bytes);
  text += line("dense weights           ", plan.dense_bytes);
  text += "  KV cache                " + format_bytes(plan.kv_cache_bytes) + " (context " +
          std::to_string(plan.context) + ")\n";
  text += "  one step                " + format_bytes(plan.scratch_bytes) + " (batch " +
          std::to_string(plan.batch) + ", " + std::to_string(plan.num_threads) + " threads)\n";
  text += "  use of experts          " + format_bytes(plan.learned_bytes) + " (predictor " +
          std::string(name_of(plan.predictor)) + ")\n";
  text += "  expert slots            " + format_bytes(plan.expert_pool_bytes) + " of " +
          format_bytes(plan.all_experts_bytes) + "; one token uses " +
          format_bytes(plan.token_expert_bytes) + "\n";
  text += line("planned                 ", plan.planned_bytes());
  text += line("budget                  ", plan.budget_bytes);
  text += line("least that would run    ", plan.least_bytes);
  return text;
}

std::string describe_shortage(const MemoryPlan& plan) {
  const std::string purpose =
      plan.mode == Mode::kStream ? "" : " for mode " + std::string(rules_of(plan.mode).name);
  return "a memory budget of " + format_bytes(plan.budget_bytes) + " is too small" + purpose +
         "; the least that runs is " + format_bytes(plan.least_bytes) +
         " (--memory min): process " + format_bytes(plan.process_bytes) + ", dense weights " +
         format_bytes(plan.dense_bytes) + ", KV cache " + format_bytes(plan.kv_cache_bytes) +
         " for a context of " + std::to_string(plan.context) + ", one step " +
         format_bytes(plan.scratch_bytes) + " for a batch of " + std::to_string(plan.batch) +
         ", what is learned of experts " + format_bytes(plan.learned_bytes) + ", expert slots " +
         format_bytes(plan.expert_pool_bytes);
}

}  // namespace edgemoe
