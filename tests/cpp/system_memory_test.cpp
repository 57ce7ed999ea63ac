#include "engine/system_memory.h"

#include <filesystem>
#include <fstream>

#include "base/units.h"
#include "test.h"

namespace edgemoe {
namespace {

// A folder that imitates the parts of /proc and /sys that are read.
class FakeRoot {
 public:
  FakeRoot() : path_(std::filesystem::temp_directory_path() / "edgemoe-fake-root") {
    std::filesystem::remove_all(path_);
    write("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n");
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }

  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root() const { return path_.string() + "/"; }

 private:
  std::filesystem::path path_;
};

TEST("without a control group only the machine limits") {
  const FakeRoot fake;
  const SystemMemory memory = system_memory(fake.root());
  CHECK_EQUAL(memory.available_bytes, 4 * kGiB);
  CHECK(!memory.group_limit_bytes);
}

TEST("the tightest group above the process counts, version 2") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "0::/outer/inner\n");
  fake.write("sys/fs/cgroup/outer/memory.max", "1073741824\n");
  fake.write("sys/fs/cgroup/outer/memory.stat", "anon 104857600\nfile 500000000\n");
  fake.write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  const SystemMemory memory = system_memory(fake.root());
  CHECK_EQUAL(memory.group_limit_bytes.value_or(0), kGiB);
  CHECK_EQUAL(memory.group_used_bytes, 100 * kMiB);
}

TEST("a memory.high below memory.max is the limit") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "0::/box\n");
  fake.write("sys/fs/cgroup/box/memory.max", "2147483648\n");
  fake.write("sys/fs/cgroup/box/memory.high", "1073741824\n");
  CHECK_EQUAL(system_memory(fake.root()).group_limit_bytes.value_or(0), kGiB);
}

TEST("the limit of a version 1 group is found, and its 'no limit' value is none") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "4:cpu:/\n3:memory:/box\n");
  fake.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  fake.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "536870912\n");
  fake.write("sys/fs/cgroup/memory/box/memory.stat", "rss 1\ntotal_rss 1048576\n");
  const SystemMemory memory = system_memory(fake.root());
  CHECK_EQUAL(memory.group_limit_bytes.value_or(0), 512 * kMiB);
  CHECK_EQUAL(memory.group_used_bytes, kMiB);
}

TEST("the automatic budget never exceeds what is there, and leaves a reserve") {
  SystemMemory system;
  system.available_bytes = 4 * kGiB;
  ProcessMemory process;
  process.resident_bytes = 100 * kMiB;
  CHECK(automatic_budget(system, process) < 4 * kGiB + 100 * kMiB);
  CHECK(automatic_budget(system, process) > 3 * kGiB);
  system.group_limit_bytes = kGiB;
  system.group_used_bytes = 200 * kMiB;
  CHECK(automatic_budget(system, process) < kGiB);
  system.group_used_bytes = 2 * kGiB;  // the group is over its limit
  CHECK_EQUAL(automatic_budget(system, process), 100 * kMiB);
}

TEST("the process knows its own memory") {
  const ProcessMemory memory = process_memory();
  CHECK(memory.resident_bytes > 0);
  CHECK(memory.peak_resident_bytes >= memory.resident_bytes);
}

}  // namespace
}  // namespace edgemoe
