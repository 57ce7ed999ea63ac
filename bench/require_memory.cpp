// Whether the memory that options ask for is there. Asking the system is not enough: it promises
// more than it has, and ends the process that takes it.
#include "base/error.h"
#include "base/units.h"
#include "commands.h"
#include "engine/system_memory.h"

namespace edgemoe::bench {

void require_memory(uint64_t bytes, const std::string& options) {
  const uint64_t available = automatic_budget(system_memory(), process_memory());
  if (bytes <= available) return;
  throw Error(ErrorCode::kBudget, format_bytes(bytes) + " of memory are needed and " +
                                      format_bytes(available) + " can be had; give a smaller " +
                                      options);
}

}  // namespace edgemoe::bench
