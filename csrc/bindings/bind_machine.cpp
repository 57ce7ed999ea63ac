#include <malloc.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include "bindings/bindings.h"
#include "bindings/conversions.h"
#include "bindings/interruptible.h"
#include "engine/machine_limits.h"
#include "engine/system_memory.h"
#include "io/device_probe.h"
#include "kernels/dispatch.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const kernels::KernelTable* table : kernels::available_tables()) {
    names.emplace_back(table->level);
  }
  return names;
}

py::dict memory() {
  const SystemMemory system = system_memory();
  const ProcessMemory process = process_memory();
  py::dict dict;
  dict["available_bytes"] = system.available_bytes;
  dict["group_limit_bytes"] =
      system.group_limit_bytes ? py::object(py::int_(*system.group_limit_bytes)) : py::none();
  dict["group_used_bytes"] = system.group_used_bytes;
  dict["group_path"] = system.group_path;
  dict["resident_bytes"] = process.resident_bytes;
  dict["peak_resident_bytes"] = process.peak_resident_bytes;
  dict["automatic_budget_bytes"] = automatic_budget(system, process);
  return dict;
}

py::dict file_access(const std::string& path, const std::string& io) {
  const File file = open_for_backend(path, io);
  py::dict dict;
  dict["direct"] = file.access() == FileAccess::kDirect;
  dict["alignment"] = file.alignment();
  dict["bytes"] = file.size();
  dict["io_uring_problem"] = uring_unavailable_reason(file);
  return dict;
}

double device_speed(const std::string& path, const std::string& io, uint64_t read_bytes,
                    double seconds) {
  ReaderOptions reader;
  reader.backend = io;
  const File file = open_for_backend(path, io);
  DeviceProbe probe;
  probe.read_bytes = read_bytes;
  probe.seconds = seconds;
  double speed = 0;
  run_interruptibly([&](const auto& should_stop) {
    probe.should_stop = should_stop;
    speed = measure_device(file, reader, probe).bytes_per_second;
  });
  return speed;
}

// Bytes per second of memory and of reads of the model's experts, within the model's budget.
py::dict bandwidth(const ModelFile& file, const py::dict& options) {
  const EngineOptions engine_options = options_from(options);
  double memory = 0;
  double storage = 0;
  run_interruptibly([&](const auto& should_stop) {
    const MemoryPlan plan = file.plan(engine_options);
    const uint64_t buffer_bytes = measurement_bytes(plan);
    ThreadPool pool(plan.num_threads);
    memory = measure_read_bandwidth(pool, buffer_bytes);
    storage = measure_expert_reads(file, engine_options.reader, buffer_bytes, should_stop);
  });
  py::dict dict;
  dict["memory"] = memory;
  dict["storage"] = storage;
  return dict;
}

// Python frees what building a tokenizer took; this gives it back to the system.
void return_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace

void bind_machine(py::module_& module) {
  module.def("levels", levels, "Kernel levels of this CPU, lowest first.");
  module.def("selected_level", [] { return std::string(kernels::select_table().level); });
  module.def("cpus", usable_cpus);
  module.def("page_bytes", [] { return ::sysconf(_SC_PAGESIZE); });
  module.def("memory", memory);
  module.def("file_access", file_access, py::arg("path"), py::arg("io"));
  module.def("device_speed", device_speed, py::arg("path"), py::arg("io"), py::arg("read_bytes"),
             py::arg("seconds"));
  module.def("bandwidth", bandwidth, py::arg("file"), py::arg("options"));
  module.def("return_freed_memory", return_freed_memory);
}

}  // namespace edgemoe
