#include "engine/system_memory.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

#include "base/units.h"

namespace edgemoe {
namespace {

// The numbers of a file of "key value" lines, in bytes where a line ends in kB.
std::map<std::string, uint64_t> values_of(const std::string& path) {
  std::map<std::string, uint64_t> values;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::string unit;
    uint64_t value = 0;
    if (!(words >> name >> value)) continue;
    words >> unit;
    values.emplace(name, unit == "kB" ? value * kKiB : value);
  }
  return values;
}

std::optional<uint64_t> value_of(const std::string& path, const std::string& key) {
  const std::map<std::string, uint64_t> values = values_of(path);
  const auto found = values.find(key);
  return found == values.end() ? std::nullopt : std::optional(found->second);
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

uint64_t less(uint64_t bytes, uint64_t taken) noexcept {
  return bytes - std::min(bytes, taken);
}

// Memory of the group that reclaim cannot take back: not its page cache, of which files in memory
// (shmem, tmpfs) are a part that without swap has nowhere to go.
uint64_t unreclaimable_bytes(const std::string& group, bool v2) {
  const std::map<std::string, uint64_t> stat = values_of(group + "/memory.stat");
  const auto bytes = [&stat](const char* key) {
    const auto found = stat.find(key);
    return found == stat.end() ? 0 : found->second;
  };
  if (!v2) {  // rss has the group's own, total_rss that of groups below it too
    return stat.contains("total_rss") ? bytes("total_rss") + bytes("total_shmem")
                                      : bytes("rss") + bytes("shmem");
  }
  return bytes("anon") + bytes("shmem") + less(bytes("kernel"), bytes("slab_reclaimable"));
}

std::optional<uint64_t> group_limit(const std::string& group, bool v2) {
  if (!v2) return limit_of(group + "/memory.limit_in_bytes");
  const std::optional<uint64_t> max = limit_of(group + "/memory.max");
  const std::optional<uint64_t> high = limit_of(group + "/memory.high");
  return max && high ? std::min(max, high) : max ? max : high;
}

// Keeps the group that has the least left: what others in a group above ours have used is gone,
// though our own limit may be lower.
void consider_group(const GroupHierarchy& hierarchy, SystemMemory& memory) {
  std::string path = hierarchy.path == "/" ? "" : hierarchy.path;
  for (;;) {  // our group and every group above it
    const std::string group = hierarchy.mount + path;
    if (const std::optional<uint64_t> limit = group_limit(group, hierarchy.v2)) {
      const uint64_t used = unreclaimable_bytes(group, hierarchy.v2);
      if (!memory.group_limit_bytes ||
          less(*limit, used) < less(*memory.group_limit_bytes, memory.group_used_bytes)) {
        memory.group_limit_bytes = limit;
        memory.group_used_bytes = used;
        memory.group_path = group;
      }
    }
    if (path.empty()) return;
    const size_t slash = path.rfind('/');
    path = slash == std::string::npos ? "" : path.substr(0, slash);
  }
}

uint64_t spare_bytes(const SystemMemory& system) noexcept {
  const uint64_t spare = system.available_bytes;
  if (!system.group_limit_bytes) return spare;
  return std::min(spare, less(*system.group_limit_bytes, system.group_used_bytes));
}

// The total of the line "some avg10=... total=N"; empty without the file.
std::optional<uint64_t> stall_total(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  constexpr std::string_view kTotal = "total=";
  while (file >> word && word != "full") {
    if (word.rfind(kTotal, 0) != 0) continue;
    uint64_t total = 0;
    if (std::istringstream(word.substr(kTotal.size())) >> total) return total;
  }
  return std::nullopt;
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

MemoryPressure memory_pressure(const std::string& root) {
  SystemMemory system = system_memory(root);
  // A system that does not say has no shortage that we could see.
  if (system.available_bytes == 0) system.available_bytes = std::numeric_limits<uint64_t>::max();
  MemoryPressure pressure;
  pressure.spare_bytes = spare_bytes(system);
  std::optional<uint64_t> stall;
  if (system.group_limit_bytes) {
    const std::string& group = pressure.group_path = system.group_path;
    stall = stall_total(group + "/memory.pressure");
    const std::string events = group + "/memory.events";
    pressure.limit_events = value_of(events, "high").value_or(0) +
                            value_of(events, "max").value_or(0) +
                            limit_of(group + "/memory.failcnt").value_or(0);  // version 1
    pressure.kill_events = value_of(events, "oom").value_or(0);
  }
  if (!stall) stall = stall_total(root + "proc/pressure/memory");
  pressure.stall_us = stall.value_or(0);
  return pressure;
}

uint64_t memory_reserve(uint64_t spare_bytes) noexcept {
  return std::clamp(spare_bytes / 10, 64 * kMiB, kGiB);
}

uint64_t automatic_budget(const SystemMemory& system, const ProcessMemory& process) noexcept {
  const uint64_t spare = spare_bytes(system);
  return process.resident_bytes + spare - std::min(spare, memory_reserve(spare));
}

uint32_t usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
}

}  // namespace edgemoe
