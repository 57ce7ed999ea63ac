#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>

#include "base/error.h"
#include "base/fast_hash.h"
#include "bindings/bindings.h"
#include "quant/layout.h"
#include "quant/unpack.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

QuantType type_from(const std::string& name) {
  const std::optional<QuantType> type = quant_type_from_name(name);
  if (!type) throw Error(ErrorCode::kArgument, "unknown quantisation type '" + name + "'");
  return *type;
}

std::vector<std::tuple<std::string, uint32_t, uint32_t, uint32_t>> quant_types() {
  std::vector<std::tuple<std::string, uint32_t, uint32_t, uint32_t>> types;
  for (const QuantTraits& one : all_quant_types()) {
    types.emplace_back(one.name, one.ggml_id, one.block_elements, one.block_bytes);
  }
  return types;
}

py::array_t<float> dequantized(const std::string& name, const std::string& data, size_t count) {
  const QuantType type = type_from(name);
  if (count % traits(type).block_elements != 0 || row_bytes(type, count) != data.size()) {
    throw Error(ErrorCode::kArgument, "count and data do not fit");
  }
  py::array_t<float> out(static_cast<py::ssize_t>(count));
  dequantize(type, reinterpret_cast<const std::byte*>(data.data()), count, out.mutable_data());
  return out;
}

// Regroups (or, backwards, ungroups) a matrix.
py::bytes moved(const std::string& name, const std::string& data, size_t rows, size_t columns,
                bool backwards) {
  const QuantType type = type_from(name);
  if (rows * row_bytes(type, columns) != data.size()) {
    throw Error(ErrorCode::kArgument, "rows, columns and data do not fit");
  }
  std::vector<std::byte> bytes(data.size());
  std::memcpy(bytes.data(), data.data(), data.size());
  std::vector<std::byte> scratch(regroup_scratch_bytes(type, columns));
  (backwards ? ungroup : regroup)(type, bytes.data(), rows, columns, scratch.data());
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

void bind_testing(py::module_& testing) {
  testing.def("quant_types", quant_types, "(name, ggml id, block elements, block bytes)");
  testing.def("dequantize", dequantized, py::arg("type"), py::arg("data"), py::arg("count"));
  testing.def("fast_hash", [](const std::string_view data) {
    return fast_hash(std::as_bytes(std::span(data)));
  });
  testing.def("regroup", [](const std::string& type, const py::bytes& data, size_t rows,
                            size_t columns) { return moved(type, data, rows, columns, false); });
  testing.def("ungroup", [](const std::string& type, const py::bytes& data, size_t rows,
                            size_t columns) { return moved(type, data, rows, columns, true); });
}

}  // namespace edgemoe
