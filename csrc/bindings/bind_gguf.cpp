// Python class GgufFile: metadata and tensor directory of a model file.
#include <pybind11/numpy.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "bindings/bindings.h"
#include "gguf/gguf_file.h"

namespace edgemoe {
namespace {

namespace py = pybind11;

constexpr size_t kLargeElements = 1024;

// Text as Python shows it. Bytes that are not UTF-8 survive as surrogates and encode back.
py::str to_text(std::string_view bytes) {
  PyObject* text =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

py::list to_bytes(const StringArray& strings) {
  py::list list(strings.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    list[i] = py::bytes(strings[i].data(), strings[i].size());
  }
  return list;
}

struct PythonValue {
  py::object operator()(uint64_t value) const { return py::int_(value); }
  py::object operator()(int64_t value) const { return py::int_(value); }
  py::object operator()(double value) const { return py::float_(value); }
  py::object operator()(bool value) const { return py::bool_(value); }
  py::object operator()(const std::string& text) const { return to_text(text); }
  py::object operator()(const StringArray& strings) const { return to_bytes(strings); }
  template <class T>
  py::object operator()(const std::vector<T>& elements) const {
    py::array_t<T> array(static_cast<py::ssize_t>(elements.size()));
    std::copy(elements.begin(), elements.end(), array.mutable_data());
    return array;
  }
};

// Elements of an array; 1 for a scalar.
size_t length_of(const MetadataValue& value) {
  return std::visit(
      []<class T>(const T& held) -> size_t {
        constexpr bool kIsScalar = std::is_arithmetic_v<T> || std::is_same_v<T, std::string>;
        if constexpr (kIsScalar) {
          return 1;
        } else {
          return held.size();
        }
      },
      value);
}

py::dict values(const GgufFile& file, std::string_view prefix, bool skip_large) {
  py::dict result;
  for (const auto& [key, value] : file.metadata().entries()) {
    if (!key.starts_with(prefix) || (skip_large && length_of(value) > kLargeElements)) continue;
    result[to_text(key)] = std::visit(PythonValue{}, value);
  }
  return result;
}

py::list tensors(const GgufFile& file) {
  py::list result(file.tensors().size());
  size_t index = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    py::tuple shape(tensor.num_dimensions);
    for (uint32_t i = 0; i < tensor.num_dimensions; ++i) shape[i] = tensor.shape[i];
    result[index++] = py::make_tuple(to_text(tensor.name), traits(tensor.type).name, shape,
                                     tensor.shard, tensor.offset, tensor.bytes);
  }
  return result;
}

py::list paths(const GgufFile& file) {
  py::list result;
  for (const std::string& path : file.paths()) result.append(to_text(path));
  return result;
}

}  // namespace

void bind_gguf(py::module_& module) {
  py::class_<GgufFile>(module, "GgufFile",
                       "Metadata and tensor directory of a GGUF model, all shards.")
      .def(py::init([](const std::filesystem::path& path) {
             py::gil_scoped_release released;
             return GgufFile::open(path.string());
           }),
           py::arg("path"), "Opens the file, or any shard of it. No tensor data is read.")
      .def(
          "metadata",
          [](const GgufFile& file, bool skip_large) { return values(file, "", skip_large); },
          py::kw_only(), py::arg("skip_large") = false,
          "All metadata by key. Strings are str (bytes that are not UTF-8 become surrogates), "
          "arrays of strings list[bytes], other arrays numpy arrays. With skip_large, arrays of "
          "more than 1024 elements are left out.")
      .def(
          "values",
          [](const GgufFile& file, std::string_view prefix) { return values(file, prefix, false); },
          py::arg("prefix") = "", "Like metadata(), for the keys that start with prefix.")
      .def(
          "string_array",
          [](const GgufFile& file, std::string_view key) {
            return to_bytes(file.metadata().get_strings(key));
          },
          py::arg("key"), "An array of strings, byte for byte.")
      .def("tensors", &tensors,
           "A tuple per tensor: name, type, shape (contiguous dimension first), shard, offset in "
           "the shard's file, bytes.")
      .def_property_readonly("paths", &paths, "The files of the model, in the order of shards.")
      .def_property_readonly("version", &GgufFile::version)
      .def_property_readonly("file_bytes", &GgufFile::file_bytes, "Size of all shards.");
}

}  // namespace edgemoe
