// What the system says about memory: of this process, of the machine, of the control group.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace edgemoe {

struct ProcessMemory {
  uint64_t resident_bytes = 0;
  uint64_t peak_resident_bytes = 0;
};
ProcessMemory process_memory();

struct SystemMemory {
  uint64_t available_bytes = 0;  // MemAvailable
  // Of the control groups above us (v1 or v2) that limit memory, the one with the least left.
  std::optional<uint64_t> group_limit_bytes;
  uint64_t group_used_bytes = 0;  // of that group, without reclaimable page cache
  std::string group_path;
};
// `root` is "/" (tests pass a folder that imitates /proc and /sys).
SystemMemory system_memory(const std::string& root = "/");

// What the system tells about pressure on memory. Counters since it started: differences count.
struct MemoryPressure {
  uint64_t spare_bytes = 0;   // left for everybody, page cache that can be dropped included
  uint64_t stall_us = 0;      // time that some task has waited for memory (PSI); 0 without it
  uint64_t limit_events = 0;  // times the group ran into its limits
  uint64_t kill_events = 0;   // times the group was out of memory
  std::string group_path;     // whose counters these are; empty: the machine's
};
// Of the group with the least left, where one is limited, else of the machine.
MemoryPressure memory_pressure(const std::string& root = "/");

// What stays with the rest of the system: speed peaks before the last byte is taken.
uint64_t memory_reserve(uint64_t spare_bytes) noexcept;
// The budget that `auto` gives this process: what it holds plus what the system and the group can
// spare, less a reserve for everybody else.
uint64_t automatic_budget(const SystemMemory& system, const ProcessMemory& process) noexcept;

// CPUs that this process may run on (its affinity).
uint32_t usable_cpus();

}  // namespace edgemoe
