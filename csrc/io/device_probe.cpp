#include "io/device_probe.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/units.h"
#include "io/read_queue.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

// A device may take a read into large pages in fewer parts than one into small pages, and several
// times as many reads at once. Experts are read into a pool of large pages, so the probe is too.
constexpr uint64_t kLeastMemory = 16 * kMiB;

constexpr double kAskSeconds = 0.01;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

DeviceSpeed measure_device(const File& file, const ReaderOptions& options,
                           const DeviceProbe& probe) {
  const uint64_t bytes = align_down(probe.read_bytes, file.alignment());
  if (bytes == 0 || bytes > file.size()) {
    throw Error(ErrorCode::kArgument, file.path() + ": reads of " +
                                          std::to_string(probe.read_bytes) +
                                          " bytes do not fit the file; at least " +
                                          std::to_string(file.alignment()) + " are needed");
  }
  auto reader = make_reader(options, file);
  const uint64_t in_flight = std::max<uint64_t>(probe.memory_bytes / bytes, 1);
  const size_t depth = std::min<uint64_t>({reader->depth(), probe.depth, in_flight});
  // Longer-lived than the queue, which waits for reads into it.
  AlignedBuffer memory(std::max(depth * bytes, kLeastMemory));
  ReadQueue queue(std::move(reader));
  const uint64_t positions = file.size() / bytes;
  uint64_t random = probe.seed;
  const auto submit = [&](uint64_t slot) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const uint64_t position = (random >> 33) % positions;
    queue.submit({&file, position * bytes, bytes, memory.data() + slot * bytes, slot});
  };

  const Clock::time_point start = Clock::now();
  for (uint64_t slot = 0; slot < depth; ++slot) submit(slot);
  DeviceSpeed speed;
  double ask_at = 0;
  while (const std::optional<CompletedRead> done = queue.next(Wait::kAtLeastOne)) {
    if (done->error != 0) {
      throw Error(ErrorCode::kIo, file.path() + ": reading failed: " + errno_text(done->error));
    }
    ++speed.reads;
    const double now = seconds_since(start);
    if (now >= ask_at) {
      throw_if_stopped(probe.should_stop);
      ask_at = now + kAskSeconds;
    }
    if (now < probe.seconds) submit(done->tag);
  }
  const double seconds = seconds_since(start);
  speed.read_bytes = bytes;
  speed.reads_per_second = static_cast<double>(speed.reads) / seconds;
  speed.bytes_per_second = speed.reads_per_second * static_cast<double>(bytes);
  return speed;
}

namespace {

constexpr uint64_t kLeastInFlight = 1 * kMiB;
constexpr size_t kDoublings = 5;

// The least of the row that reaches most of the best rate.
uint64_t enough_in_flight(const File& file, const ReaderOptions& reader, DeviceProbe probe) {
  constexpr double kEnough = 0.9;
  constexpr double kTooSlow = 10;
  std::array<double, kDoublings + 1> rates{};
  for (size_t i = 0; i <= kDoublings; ++i) {
    probe.memory_bytes = std::max(kLeastInFlight << i, probe.read_bytes);
    const Clock::time_point start = Clock::now();
    rates[i] = measure_device(file, reader, probe).bytes_per_second;
    ++probe.seed;
    // A device that is still busy with what was in flight gains nothing from more.
    if (seconds_since(start) > kTooSlow * probe.seconds) break;
  }
  const double best = *std::max_element(rates.begin(), rates.end());
  size_t enough = 0;
  while (rates[enough] < kEnough * best) ++enough;
  return std::max(kLeastInFlight << enough, 2 * probe.read_bytes);
}

}  // namespace

uint64_t measure_in_flight(const File& file, const ReaderOptions& reader, uint64_t read_bytes,
                           double seconds, const ShouldStop& should_stop) {
  // Shared devices stutter, and grant a burst to whoever comes first: the median of a few.
  std::array<uint64_t, 3> found{};
  DeviceProbe probe;
  probe.read_bytes = read_bytes;
  probe.seconds = seconds;
  probe.should_stop = should_stop;
  for (size_t i = 0; i < found.size(); ++i) {
    probe.seed = 100 * (i + 1);
    found[i] = enough_in_flight(file, reader, probe);
  }
  std::sort(found.begin(), found.end());
  return found[found.size() / 2];
}

}  // namespace edgemoe
