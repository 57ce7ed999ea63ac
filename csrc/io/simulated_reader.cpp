#include "io/simulated_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <thread>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

// splitmix64: small, seeded, the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() noexcept {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t bound) noexcept { return next() % bound; }
  bool happens(double share) noexcept {
    return static_cast<double>(next() >> 11) * 0x1p-53 < share;
  }

 private:
  uint64_t state_;
};

template <class T>
T parse_number(std::string_view key, std::string_view text) {
  T value{};
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size()) {
    throw Error(ErrorCode::kArgument, "simulated device: " + std::string(key) + "='" +
                                          std::string(text) + "' is not a number");
  }
  return value;
}

void set_option(std::string_view key, std::string_view value, SimulatedDevice& device) {
  const auto share = [&] {
    const double number = parse_number<double>(key, value);
    if (number >= 0 && number <= 1) return number;
    throw Error(ErrorCode::kArgument,
                "simulated device: " + std::string(key) + " is a share between 0 and 1");
  };
  const auto count = [&] { return parse_number<uint64_t>(key, value); };
  if (key == "seed") {
    device.seed = count();
  } else if (key == "latency") {
    device.latency_us = count();
  } else if (key == "serial") {
    device.serial = count() != 0;
  } else if (key == "reorder") {
    device.reorder = count() != 0;
  } else if (key == "short") {
    device.short_reads = share();
  } else if (key == "eintr") {
    device.interrupted = share();
  } else if (key == "eagain") {
    device.busy = share();
  } else if (key == "eio") {
    device.failing = share();
  } else if (key == "eio_after") {
    device.fail_after = count();
  } else if (key == "eio_count") {
    device.fail_count = count();
  } else if (key == "align") {
    device.alignment = count();
    if (is_power_of_two(device.alignment) && device.alignment <= AlignedBuffer::kAlignment) return;
    throw Error(ErrorCode::kArgument, "simulated device: align is a power of two, 65536 at most");
  } else {
    throw Error(
        ErrorCode::kArgument,
        "simulated device: unknown option '" + std::string(key) +
            "'; known: seed, latency, serial, reorder, short, eintr, eagain, eio, eio_after, "
            "eio_count, align");
  }
}

class SimulatedReader final : public AsyncReader {
 public:
  SimulatedReader(const SimulatedDevice& device, size_t depth)
      : device_(device), random_(device.seed), depth_(depth) {
    pending_.reserve(depth);
  }

  std::string_view name() const noexcept override { return "simulated"; }
  size_t depth() const noexcept override { return depth_; }
  size_t outstanding() const noexcept override { return pending_.size(); }

  size_t submit(std::span<const ReadRequest> requests) noexcept override {
    const size_t count = std::min(requests.size(), depth_ - pending_.size());
    const std::chrono::microseconds latency(device_.latency_us);
    for (const ReadRequest& request : requests.first(count)) {
      const Clock::time_point now = Clock::now();
      last_due_ = (device_.serial ? std::max(now, last_due_) : now) + latency;
      pending_.push_back({request, last_due_});
    }
    return count;
  }

  size_t drain(std::span<ReadResult> results, Wait wait) noexcept override {
    size_t count = 0;
    while (count < results.size() && !pending_.empty()) {
      const size_t index = device_.reorder ? random_.below(pending_.size()) : 0;
      if (device_.latency_us > 0 && Clock::now() < pending_[index].due) {
        if (count > 0 || wait == Wait::kNo) break;
        std::this_thread::sleep_until(pending_[index].due);
      }
      const ReadRequest request = pending_[index].request;
      pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
      results[count++] = {request.tag, carry_out(request)};
      // Completions trickle in, as those of a device do.
      if (device_.reorder && random_.happens(0.5)) break;
    }
    return count;
  }

 private:
  struct Pending {
    ReadRequest request;
    Clock::time_point due;
  };

  bool aligned(const ReadRequest& request) const noexcept {
    if (request.file->access() == FileAccess::kBuffered) return true;
    const auto address = reinterpret_cast<uintptr_t>(request.destination);
    return (request.offset | request.bytes | address) % device_.alignment == 0;
  }

  int64_t carry_out(const ReadRequest& request) noexcept {
    if (!aligned(request)) return -EINVAL;
    if (random_.happens(device_.interrupted)) return -EINTR;
    if (random_.happens(device_.busy)) return -EAGAIN;
    const bool failing_now = served_ >= device_.fail_after && failed_ < device_.fail_count;
    if (failing_now || random_.happens(device_.failing)) {
      if (failing_now) ++failed_;
      return -EIO;
    }
    ++served_;
    size_t bytes = request.bytes;
    if (random_.happens(device_.short_reads)) {
      // Direct reads end at a multiple of the alignment, or bring nothing.
      const size_t alignment = request.file->alignment();
      bytes = align_down(random_.below(bytes), alignment);
      if (bytes == 0) return -EAGAIN;
    }
    const ssize_t count = ::pread(request.file->descriptor(), request.destination, bytes,
                                  static_cast<off_t>(request.offset));
    return count < 0 ? -int64_t{errno} : int64_t{count};
  }

  const SimulatedDevice device_;
  Random random_;
  const size_t depth_;
  std::vector<Pending> pending_;
  Clock::time_point last_due_;
  uint64_t served_ = 0;
  uint64_t failed_ = 0;
};

}  // namespace

SimulatedDevice parse_simulated_device(std::string_view options) {
  SimulatedDevice device;
  while (!options.empty()) {
    const size_t comma = std::min(options.find(','), options.size());
    const std::string_view item = options.substr(0, comma);
    options.remove_prefix(std::min(comma + 1, options.size()));
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos) {
      throw Error(ErrorCode::kArgument,
                  "simulated device: '" + std::string(item) + "' is not KEY=VALUE");
    }
    set_option(item.substr(0, equals), item.substr(equals + 1), device);
  }
  return device;
}

std::unique_ptr<AsyncReader> make_simulated_reader(const SimulatedDevice& device, size_t depth) {
  return std::make_unique<SimulatedReader>(device, depth);
}

}  // namespace edgemoe
