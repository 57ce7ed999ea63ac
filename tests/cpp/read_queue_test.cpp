#include "io/read_queue.h"

#include <cerrno>
#include <cstring>
#include <map>

#include "base/aligned_buffer.h"
#include "few_threads.h"
#include "io/device_probe.h"
#include "io/simulated_reader.h"
#include "temporary_file.h"
#include "test.h"

namespace edgemoe {
namespace {

using test::TemporaryFile;

ReaderOptions with_backend(const std::string& backend, size_t depth = 8) {
  ReaderOptions options;
  options.backend = backend;
  options.depth = depth;
  options.num_threads = 3;
  return options;
}

// Backends that work here.
std::vector<std::string> backends(const File& file) {
  std::vector<std::string> names = {"auto",
                                    "pread",
                                    "buffered",
                                    "simulated:seed=1,reorder=1",
                                    "simulated:short=0.5,eintr=0.2,eagain=0.2,reorder=1",
                                    "simulated:seed=9,latency=50,reorder=1",
                                    "simulated:align=16384,short=0.3,reorder=1",
                                    "simulated:align=65536,short=0.3,reorder=1"};
  if (uring_unavailable_reason(file).empty()) names.emplace_back("uring");
  return names;
}

struct Wanted {
  uint64_t offset;
  uint64_t bytes;
};

// Reads all ranges at once and compares; returns the errors by tag.
std::map<uint64_t, int> read_all(const File& file, const TemporaryFile& expected,
                                 const std::string& backend, const std::vector<Wanted>& ranges) {
  ReadQueue queue(make_reader(with_backend(backend), file));
  std::vector<AlignedBuffer> memory;
  for (size_t i = 0; i < ranges.size(); ++i) {
    memory.emplace_back(window_bytes(ranges[i].offset, ranges[i].bytes, file.alignment()) + 1);
    queue.submit({&file, ranges[i].offset, ranges[i].bytes, memory[i].data(), i});
  }
  std::map<uint64_t, int> errors;
  while (const auto done = queue.next(Wait::kAtLeastOne)) {
    CHECK(!errors.contains(done->tag));
    errors[done->tag] = done->error;
    const Wanted& range = ranges[done->tag];
    const std::byte* found = memory[done->tag].data() + range.offset % file.alignment();
    if (done->error != 0) continue;
    CHECK(std::memcmp(found, expected.data() + range.offset, range.bytes) == 0);
  }
  CHECK_EQUAL(queue.outstanding_ranges(), 0u);
  CHECK_EQUAL(errors.size(), ranges.size());
  return errors;
}

TEST("every backend brings every range whole, more of them than its depth") {
  const TemporaryFile temporary(9'000'000);
  const File probe(temporary.path(), FileAccess::kDirect);
  std::vector<Wanted> ranges = {{0, 9'000'000}, {1, 1}, {8'999'999, 1}, {4095, 2}, {77, 5'000'000}};
  for (uint64_t i = 0; i < 40; ++i) ranges.push_back({i * 200'003, 30'000 + i});
  for (const std::string& backend : backends(probe)) {
    const File file = open_for_backend(temporary.path(), backend);
    for (const auto& [tag, error] : read_all(file, temporary, backend, ranges)) {
      CHECK_EQUAL(error, 0);
    }
  }
}

TEST("pread works with the threads that the system allows") {
  const TemporaryFile temporary(100'000);
  const File file(temporary.path(), FileAccess::kDirect);
  const test::FewThreads limited;
  const std::vector<Wanted> ranges = {{0, 100}, {20'000, 100}, {50'000, 100}, {70'000, 9}};
  for (const auto& [tag, error] : read_all(file, temporary, "pread", ranges)) CHECK_EQUAL(error, 0);
}

TEST("one EIO is forgiven, a lasting one is reported for its range") {
  const TemporaryFile temporary(100'000);
  const File file(temporary.path(), FileAccess::kDirect);
  const std::vector<Wanted> ranges = {{0, 100}, {20'000, 100}, {50'000, 100}};
  const auto once = read_all(file, temporary, "simulated:eio_after=1,eio_count=1", ranges);
  for (const auto& [tag, error] : once) CHECK_EQUAL(error, 0);
  const auto lasting = read_all(file, temporary, "simulated:eio_after=1", ranges);
  CHECK_EQUAL(lasting.at(0), 0);
  CHECK_EQUAL(lasting.at(1), EIO);
  CHECK_EQUAL(lasting.at(2), EIO);
}

TEST("a range beyond the end of a shrunken file is reported, not waited for") {
  const TemporaryFile temporary(100'000);
  for (const std::string backend : {"pread", "auto"}) {
    const File file(temporary.path(), FileAccess::kDirect);
    REQUIRE(::truncate(temporary.path().c_str(), 10'000) == 0);
    const auto errors = read_all(file, temporary, backend, {{0, 5'000}, {60'000, 100}});
    CHECK_EQUAL(errors.at(0), 0);
    CHECK_EQUAL(errors.at(1), ENODATA);
  }
}

TEST("a queue that is dropped waits for its reads") {
  const TemporaryFile temporary(4'000'000);
  const File probe(temporary.path(), FileAccess::kDirect);
  for (const std::string& backend : backends(probe)) {
    const File file = open_for_backend(temporary.path(), backend);
    AlignedBuffer memory(4'100'000);
    ReadQueue queue(make_reader(with_backend(backend, 2), file));
    for (uint64_t i = 0; i < 20; ++i) {
      queue.submit({&file, i * 200'000, 100'000, memory.data() + i * 204'800, i});
    }
  }
}

TEST("without anything to wait for, waiting returns at once") {
  const TemporaryFile temporary(10'000);
  const File file(temporary.path(), FileAccess::kDirect);
  ReadQueue queue(make_reader(with_backend("pread"), file));
  CHECK(!queue.next(Wait::kAtLeastOne));
  CHECK(!queue.next(Wait::kNo));
}

TEST("names and options of readers that do not exist are refused by name") {
  const TemporaryFile temporary(10'000);
  const File file(temporary.path(), FileAccess::kDirect);
  const std::string backend =
      ERROR_MESSAGE(ErrorCode::kArgument, make_reader(with_backend("telepathy"), file));
  CHECK(backend.find("telepathy") != std::string::npos);
  for (const std::string options : {"speed=1", "short=2", "seed=x", "reorder", "eio=-1"}) {
    ERROR_MESSAGE(ErrorCode::kArgument, parse_simulated_device(options));
  }
}

TEST("a simulated device repeats itself") {
  const TemporaryFile temporary(1'000'000);
  const File file(temporary.path(), FileAccess::kDirect);
  const auto order = [&] {
    ReadQueue queue(
        make_reader(with_backend("simulated:seed=4,reorder=1,short=0.3,eagain=0.2"), file));
    AlignedBuffer memory(30 * 8192);
    std::vector<uint64_t> tags;
    for (uint64_t i = 0; i < 30; ++i) {
      queue.submit({&file, i * 30'000, 100, memory.data() + i * 8192, i});
    }
    while (const auto done = queue.next(Wait::kAtLeastOne)) tags.push_back(done->tag);
    return tags;
  };
  CHECK(order() == order());
}

TEST("measuring a device stops when it is asked to") {
  const TemporaryFile temporary(1 << 20);
  const File file(temporary.path(), FileAccess::kDirect);
  // The reads in flight then arrive in memory that is still there.
  DeviceProbe probe;
  probe.read_bytes = 65536;
  probe.seconds = 3600;
  int left = 3;
  probe.should_stop = [&left] { return left-- <= 0; };
  for (const std::string backend : {"pread", "simulated:latency=3000,reorder=1"}) {
    left = 3;
    ERROR_MESSAGE(ErrorCode::kCancelled, measure_device(file, with_backend(backend), probe));
    left = 3;
    ERROR_MESSAGE(ErrorCode::kCancelled,
                  measure_in_flight(file, with_backend(backend), 65536, 3600, probe.should_stop));
  }
}

}  // namespace
}  // namespace edgemoe
