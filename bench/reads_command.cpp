// reads: random reads of a file, as the engine reads experts.
#include <algorithm>

#include "commands.h"
#include "io/device_probe.h"

namespace edgemoe::bench {

void reads_command(Arguments& arguments, JsonWriter& json) {
  ReaderOptions reader;
  reader.backend = arguments.text("io", "auto");
  reader.depth = arguments.count("depth", 32, 4096);
  DeviceProbe probe;
  probe.read_bytes = arguments.size("bytes", probe.read_bytes);
  probe.seconds = static_cast<double>(arguments.count("seconds", 2, 3600));
  probe.depth = reader.depth;
  arguments.refuse_unknown();
  const File file = open_for_backend(arguments.file(), reader.backend);
  require_memory(std::min(probe.read_bytes, file.size()) * reader.depth, "--bytes or --depth");
  const DeviceSpeed speed = measure_device(file, reader, probe);
  json.field("gigabytes_per_second", speed.bytes_per_second * 1e-9);
  json.field("reads_per_second", speed.reads_per_second);
  json.field("read_bytes", speed.read_bytes);
  json.field("reads", speed.reads);
  json.field("depth", uint64_t{reader.depth});
  json.field("io", make_reader(reader, file)->name());
  json.field("direct", std::string_view(file.access() == FileAccess::kDirect ? "yes" : "no"));
}

}  // namespace edgemoe::bench
