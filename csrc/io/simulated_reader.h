// A device for tests: real bytes, and the latency, order and faults that its options ask for.
// With a seed everything but time is repeatable.
#pragma once

#include <memory>
#include <string_view>

#include "io/async_reader.h"

namespace edgemoe {

struct SimulatedDevice {
  uint64_t seed = 1;
  uint64_t latency_us = 0;             // from submission to completion
  bool serial = false;                 // one read after another, the latency for each
  bool reorder = false;                // complete in random order
  double short_reads = 0;              // share of reads that bring less than they were asked for
  double interrupted = 0;              // share that fail with EINTR
  double busy = 0;                     // share that fail with EAGAIN
  double failing = 0;                  // share that fail with EIO
  uint64_t fail_after = ~uint64_t{0};  // reads that succeed before the next ones fail with EIO
  uint64_t fail_count = ~uint64_t{0};  // how many do
  uint64_t alignment = 1;  // direct reads that are not aligned to it in every way fail with EINVAL
};

// "seed=1,latency=200,serial=1,reorder=1,short=0.1,eintr=0.1,eagain=0.1,eio=0.01,eio_after=100,
// eio_count=2,align=65536", in one line;
// latency in microseconds. Errors: kArgument naming the key or value that is wrong.
SimulatedDevice parse_simulated_device(std::string_view options);

std::unique_ptr<AsyncReader> make_simulated_reader(const SimulatedDevice& device, size_t depth);

}  // namespace edgemoe
