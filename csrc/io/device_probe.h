// How fast a file's device reads: random positions, one size, one depth.
#pragma once

#include <cstdint>

#include "base/should_stop.h"
#include "io/async_reader.h"

namespace edgemoe {

struct DeviceSpeed {
  double bytes_per_second = 0;
  double reads_per_second = 0;
  uint64_t read_bytes = 0;  // of one read
  uint64_t reads = 0;       // that were measured
};

struct DeviceProbe {
  uint64_t read_bytes = 1 << 20;
  double seconds = 1.0;
  uint64_t seed = 1;
  uint64_t memory_bytes = 128u << 20;  // of all reads in flight together
  size_t depth = 32;                   // reads in flight, at most
  // Asked now and then; true stops with Error(kCancelled) when what is in flight has arrived.
  ShouldStop should_stop;
};

// Reads whole aligned pieces at seeded random positions of `file`, as many at a time as the reader
// takes. Errors: kArgument when the file is shorter than a read; kIo, kCancelled.
DeviceSpeed measure_device(const File& file, const ReaderOptions& reader, const DeviceProbe& probe);

// Bytes in flight from which reads of `read_bytes` gain no more: the least of six doublings that
// reaches 90 % of the best rate, at least two reads. Measures each three times for `seconds`.
// Errors: as measure_device, whose probe has the same should_stop.
uint64_t measure_in_flight(const File& file, const ReaderOptions& reader, uint64_t read_bytes,
                           double seconds, const ShouldStop& should_stop = {});

}  // namespace edgemoe
