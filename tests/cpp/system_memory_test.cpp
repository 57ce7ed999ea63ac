#include "engine/system_memory.h"

#include "base/units.h"
#include "fake_root.h"
#include "test.h"

namespace edgemoe {
namespace {

using test::FakeRoot;

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

TEST("the group with the least left counts, not that with the least limit, version 2") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "0::/outer/inner\n");
  fake.write("sys/fs/cgroup/outer/memory.max", "1048576000\n");
  fake.write("sys/fs/cgroup/outer/memory.stat", "anon 734003200\n");  // most of it our sibling's
  fake.write("sys/fs/cgroup/outer/memory.events", "low 0\nhigh 0\nmax 3\noom 2\n");
  fake.write("sys/fs/cgroup/outer/memory.pressure", "some avg10=0 avg60=0 avg300=0 total=9\n");
  fake.write("sys/fs/cgroup/outer/inner/memory.max", "943718400\n");
  fake.write("sys/fs/cgroup/outer/inner/memory.stat", "anon 1048576\n");
  const SystemMemory memory = system_memory(fake.root());
  CHECK_EQUAL(memory.group_limit_bytes.value_or(0), 1000 * kMiB);
  CHECK_EQUAL(memory.group_used_bytes, 700 * kMiB);
  CHECK(memory.group_path.ends_with("sys/fs/cgroup/outer"));
  ProcessMemory process;
  CHECK(automatic_budget(memory, process) < 300 * kMiB);
  const MemoryPressure pressure = memory_pressure(fake.root());
  CHECK_EQUAL(pressure.spare_bytes, 300 * kMiB);
  CHECK_EQUAL(pressure.limit_events, 3u);
  CHECK_EQUAL(pressure.kill_events, 2u);
  CHECK_EQUAL(pressure.stall_us, 9u);
}

TEST("the group with the least left counts, not that with the least limit, version 1") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "3:memory:/outer/inner\n");
  fake.write("sys/fs/cgroup/memory/outer/memory.limit_in_bytes", "1048576000\n");
  fake.write("sys/fs/cgroup/memory/outer/memory.stat", "rss 0\ntotal_rss 734003200\n");
  fake.write("sys/fs/cgroup/memory/outer/memory.failcnt", "5\n");
  fake.write("sys/fs/cgroup/memory/outer/inner/memory.limit_in_bytes", "943718400\n");
  fake.write("sys/fs/cgroup/memory/outer/inner/memory.stat", "rss 1048576\ntotal_rss 1048576\n");
  CHECK_EQUAL(memory_pressure(fake.root()).spare_bytes, 300 * kMiB);
  CHECK_EQUAL(memory_pressure(fake.root()).limit_events, 5u);
  fake.write("sys/fs/cgroup/memory/outer/inner/memory.stat", "rss 0\ntotal_rss 838860800\n");
  CHECK_EQUAL(memory_pressure(fake.root()).spare_bytes, 100 * kMiB);
}

TEST("files in memory are used memory, reclaimable slabs are not") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "0::/box\n");
  fake.write("sys/fs/cgroup/box/memory.max", "1073741824\n");
  fake.write("sys/fs/cgroup/box/memory.stat",
             "anon 104857600\nfile 524288000\nkernel 10485760\nshmem 209715200\n"
             "slab_reclaimable 8388608\n");
  CHECK_EQUAL(system_memory(fake.root()).group_used_bytes, 302 * kMiB);
  fake.write("proc/self/cgroup", "3:memory:/box\n");
  fake.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "536870912\n");
  fake.write("sys/fs/cgroup/memory/box/memory.stat",
             "cache 1\nrss 1\nshmem 1\ntotal_rss 104857600\ntotal_shmem 209715200\n");
  fake.write("sys/fs/cgroup/box/memory.max", "max\n");
  CHECK_EQUAL(system_memory(fake.root()).group_used_bytes, 300 * kMiB);
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

TEST("pressure is read from the group that limits, version 2") {
  const FakeRoot fake;
  fake.write("proc/self/cgroup", "0::/box\n");
  fake.write("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
  CHECK_EQUAL(memory_pressure(fake.root()).stall_us, 5u);
  fake.write("sys/fs/cgroup/box/memory.max", "1073741824\n");
  fake.write("sys/fs/cgroup/box/memory.stat", "anon 104857600\nkernel 1048576\n");
  fake.write("sys/fs/cgroup/box/memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n");
  CHECK_EQUAL(memory_pressure(fake.root()).stall_us, 5u);  // a kernel that counts none of groups
  fake.write("sys/fs/cgroup/box/memory.pressure",
             "some avg10=1.00 avg60=0.20 avg300=0.00 total=123456\n"
             "full avg10=0.00 avg60=0.00 avg300=0.00 total=999\n");
  const MemoryPressure pressure = memory_pressure(fake.root());
  CHECK_EQUAL(pressure.spare_bytes, kGiB - 101 * kMiB);
  CHECK_EQUAL(pressure.stall_us, 123456u);
  CHECK_EQUAL(pressure.limit_events, 5u);
  CHECK_EQUAL(pressure.kill_events, 4u);
}

TEST("pressure is read from a version 1 group, and from a machine that tells little") {
  const FakeRoot fake;
  CHECK_EQUAL(memory_pressure(fake.root()).spare_bytes, 4 * kGiB);
  CHECK_EQUAL(memory_pressure(fake.root()).stall_us, 0u);
  fake.write("proc/self/cgroup", "3:memory:/box\n");
  fake.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "536870912\n");
  fake.write("sys/fs/cgroup/memory/box/memory.stat", "total_rss 1048576\n");
  fake.write("sys/fs/cgroup/memory/box/memory.failcnt", "7\n");
  CHECK_EQUAL(memory_pressure(fake.root()).limit_events, 7u);
  CHECK_EQUAL(memory_pressure(fake.root()).spare_bytes, 511 * kMiB);
  CHECK(memory_pressure("/nowhere/").spare_bytes > (uint64_t{1} << 60));
}

TEST("the process knows its own memory") {
  const ProcessMemory memory = process_memory();
  CHECK(memory.resident_bytes > 0);
  CHECK(memory.peak_resident_bytes >= memory.resident_bytes);
}

}  // namespace
}  // namespace edgemoe
