#include "engine/system_memory.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

#include "base/units.h"

namespace edgemoe {
namespace {

// The number after `key` in a file of "key value" lines, in bytes when the line ends in kB.
std::optional<uint64_t> value_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::string unit;
    uint64_t value = 0;
    if (!(words >> name >> value) || name != key) continue;
    words >> unit;
    return unit == "kB" ? value * kKiB : value;
  }
  return std::nullopt;
}

// A file that holds one number; empty for "max", a missing file, or v1's "no limit" value.
std::optional<uint64_t> limit_of(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  constexpr uint64_t kNoLimit = uint64_t{1} << 60;
  return value < kNoLimit ? std::optional(value) : std::nullopt;
}

struct GroupHierarchy {
  std::string mount;  // where the memory controller is mounted
  std::string path;   // of our group below it
  bool v2 = false;
};

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

// /proc/self/cgroup lines: "0::/path" (v2), "5:memory:/path" (v1).
std::vector<GroupHierarchy> group_hierarchies(const std::string& root) {
  std::vector<GroupHierarchy> found;
  std::ifstream file(root + "proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      found.push_back({root + "sys/fs/cgroup", path, true});
      found.push_back({root + "sys/fs/cgroup/unified", path, true});
    } else if (has_word(controllers, "memory")) {
      found.push_back({root + "sys/fs/cgroup/memory", path, false});
    }
  }
  return found;
}

// Memory of the group that reclaim cannot take back: not its page cache.
uint64_t unreclaimable_bytes(const std::string& group, bool v2) {
  const std::string stat = group + "/memory.stat";
  if (v2) return value_of(stat, "anon").value_or(0) + value_of(stat, "kernel").value_or(0);
  return value_of(stat, "total_rss").value_or(value_of(stat, "rss").value_or(0));
}

void consider_group(const GroupHierarchy& hierarchy, SystemMemory& memory) {
  std::string path = hierarchy.path == "/" ? "" : hierarchy.path;
  for (;;) {  // our group and every group above it
    const std::string group = hierarchy.mount + path;
    std::optional<uint64_t> limit =
        limit_of(group + (hierarchy.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    if (hierarchy.v2) {
      const std::optional<uint64_t> high = limit_of(group + "/memory.high");
      if (high && (!limit || *high < *limit)) limit = high;
    }
    if (limit && (!memory.group_limit_bytes || *limit < *memory.group_limit_bytes)) {
      memory.group_limit_bytes = limit;
      memory.group_used_bytes = unreclaimable_bytes(group, hierarchy.v2);
      memory.group_path = group;
    }
    if (path.empty()) return;
    const size_t slash = path.rfind('/');
    path = slash == std::string::npos ? "" : path.substr(0, slash);
  }
}

}  // namespace

ProcessMemory process_memory() {
  ProcessMemory memory;
  memory.resident_bytes = value_of("/proc/self/status", "VmRSS:").value_or(0);
  memory.peak_resident_bytes = value_of("/proc/self/status", "VmHWM:").value_or(0);
  return memory;
}

SystemMemory system_memory(const std::string& root) {
  SystemMemory memory;
  memory.available_bytes = value_of(root + "proc/meminfo", "MemAvailable:").value_or(0);
  for (const GroupHierarchy& hierarchy : group_hierarchies(root)) {
    consider_group(hierarchy, memory);
  }
  return memory;
}

uint64_t automatic_budget(const SystemMemory& system, const ProcessMemory& process) noexcept {
  uint64_t spare = system.available_bytes;
  if (system.group_limit_bytes) {
    const uint64_t limit = *system.group_limit_bytes;
    spare = std::min(spare, limit - std::min(limit, system.group_used_bytes));
  }
  // A tenth, between 64 MiB and 1 GiB, stays with the rest of the system: speed peaks before the
  // last byte is taken.
  const uint64_t reserve = std::clamp(spare / 10, 64 * kMiB, kGiB);
  return process.resident_bytes + spare - std::min(spare, reserve);
}

uint32_t usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
}

}  // namespace edgemoe
