#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "gguf/gguf_file.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

// Text of a file is UTF-8 by its specification, and whatever bytes it likes in practice.
py::object text_of(std::string_view text) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
}

template <class T>
py::object array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::object object_of(const StringArray& strings) {
  py::list list(strings.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    list[i] = py::bytes(strings[i].data(), strings[i].size());
  }
  return list;
}
py::object object_of(const std::vector<bool>& values) {
  return py::cast(values);
}
py::object object_of(const std::vector<uint64_t>& values) {
  return array_of(values);
}
py::object object_of(const std::vector<int64_t>& values) {
  return array_of(values);
}
py::object object_of(const std::vector<double>& values) {
  return array_of(values);
}
py::object object_of(const std::string& text) {
  return text_of(text);
}
py::object object_of(bool value) {
  return py::bool_(value);
}
py::object object_of(double value) {
  return py::float_(value);
}
py::object object_of(uint64_t value) {
  return py::int_(value);
}
py::object object_of(int64_t value) {
  return py::int_(value);
}

py::dict values_of(const GgufFile& file, const std::string& prefix) {
  py::dict values;
  for (const auto& [key, value] : file.metadata().entries()) {
    if (!key.starts_with(prefix)) continue;
    values[text_of(key)] = std::visit([](const auto& held) { return object_of(held); }, value);
  }
  return values;
}

py::list tensors_of(const GgufFile& file) {
  py::list tensors;
  for (const TensorInfo& tensor : file.tensors()) {
    py::list shape;
    for (uint32_t i = 0; i < tensor.num_dimensions; ++i) shape.append(tensor.shape[i]);
    tensors.append(py::make_tuple(text_of(tensor.name), std::string(traits(tensor.type).name),
                                  py::tuple(shape), tensor.shard, tensor.offset, tensor.bytes));
  }
  return tensors;
}

py::list paths_of(const GgufFile& file) {
  py::list paths;
  for (const std::string& path : file.paths()) paths.append(text_of(path));
  return paths;
}

}  // namespace

void bind_gguf(py::module_& module) {
  py::class_<GgufFile>(module, "GgufFile")
      .def(py::init([](const std::string& path) {
             py::gil_scoped_release released;
             return GgufFile::open(path);
           }),
           py::arg("path"))
      .def("values", values_of, py::arg("prefix") = "",
           "Metadata whose keys start with prefix: str, int, float, bool, numpy arrays, and lists "
           "of bytes for arrays of strings.")
      .def("tensors", tensors_of, "(name, type, shape, shard, offset, bytes) of every tensor.")
      .def_property_readonly("paths", paths_of)
      .def_property_readonly("version", &GgufFile::version)
      .def_property_readonly("file_bytes", &GgufFile::file_bytes);
}

}  // namespace edgemoe
