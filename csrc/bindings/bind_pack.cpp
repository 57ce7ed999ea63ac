// Packing for Python: the source's parts, and packing itself.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bitwidth/packer.h"
#include "gguf/gguf_writer.h"
#include "weights/container_keys.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

constexpr ExpertMatrix kMatrices[] = {ExpertMatrix::kGate, ExpertMatrix::kUp, ExpertMatrix::kDown};

std::vector<std::string> quant_types() {
  std::vector<std::string> names;
  for (const QuantTraits& one : all_quant_types()) names.emplace_back(one.name);
  return names;
}

QuantType type_from(const std::string& name) {
  const std::optional<QuantType> type = quant_type_from_name(name);
  if (!type) throw Error(ErrorCode::kArgument, "unknown quantisation type '" + name + "'");
  return *type;
}

// Text of a file; bytes that are not UTF-8 are replaced.
py::object text_of(const std::string& bytes) {
  PyObject* text =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(text);
}

// Paths as Python spells them: bytes that are not UTF-8 become surrogates.
py::list path_list(std::span<const std::string> paths) {
  py::list result;
  for (const std::string& path : paths) {
    PyObject* text =
        PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()));
    if (text == nullptr) throw py::error_already_set();
    result.append(py::reinterpret_steal<py::object>(text));
  }
  return result;
}

// Per layer None, or for each of gate, up and down None or (columns, rows, types of the experts).
py::list expert_matrices(const PackSource& source) {
  py::list layers;
  for (uint32_t layer = 0; layer < source.num_layers(); ++layer) {
    if (!source.is_moe(layer)) {
      layers.append(py::none());
      continue;
    }
    py::list matrices;
    for (const ExpertMatrix matrix : kMatrices) {
      const ExpertSource& first = source.expert(layer, 0, matrix);
      if (first.tensor == nullptr) {
        matrices.append(py::none());
        continue;
      }
      py::list types;
      for (uint32_t expert = 0; expert < source.num_experts(); ++expert) {
        types.append(
            py::str(std::string(traits(source.expert(layer, expert, matrix).type()).name)));
      }
      matrices.append(py::make_tuple(first.columns(), first.rows, types));
    }
    layers.append(matrices);
  }
  return layers;
}

py::list dense_tensors(const PackSource& source) {
  py::list result;
  for (const DenseSource& dense : source.dense()) {
    const TensorInfo& tensor = *dense.tensor;
    result.append(py::make_tuple(text_of(tensor.name), std::string(traits(tensor.type).name),
                                 tensor.columns(), tensor.rows(), dense.may_quantize));
  }
  return result;
}

ExpertTypes expert_types_from(const py::handle& names) {
  ExpertTypes types{};
  size_t matrix = 0;
  for (const auto& name : names.cast<std::array<std::string, kNumExpertMatrices>>()) {
    types[matrix++] = type_from(name);
  }
  return types;
}

void set_expert_types(const PackSource& source, const py::handle& layers, PackRequest& request) {
  request.expert_types.resize(size_t{source.num_layers()} * source.num_experts());
  size_t layer = 0;
  for (const py::handle& experts : layers.cast<py::list>()) {
    size_t index = layer++ * source.num_experts();
    if (experts.is_none()) continue;
    for (const py::handle& types : experts.cast<py::sequence>()) {
      if (index >= request.expert_types.size()) break;
      request.expert_types[index++] = expert_types_from(types);
    }
  }
}

// Per layer None, or per expert None or the types of its low copy.
void set_low_types(const PackSource& source, const py::handle& layers, PackRequest& request) {
  request.low_types.resize(size_t{source.num_layers()} * source.num_experts());
  size_t layer = 0;
  for (const py::handle& experts : layers.cast<py::list>()) {
    size_t index = layer++ * source.num_experts();
    if (experts.is_none()) continue;
    for (const py::handle& names : experts.cast<py::sequence>()) {
      if (index >= request.low_types.size()) break;
      std::optional<ExpertTypes>& types = request.low_types[index++];
      if (!names.is_none()) types = expert_types_from(names);
    }
  }
}

std::string metadata_value(const py::handle& value) {
  if (py::isinstance<py::int_>(value)) return gguf_value(value.cast<uint32_t>());
  return gguf_value(std::string_view(value.cast<std::string>()));
}

std::span<const float> floats(const FloatArray& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

// Arrays that the request borrows.
struct Arrays {
  FloatArray input;
  FloatArray hidden;
  std::map<std::string, FloatArray> tensors;
  std::vector<FloatArray> factors;
};

// (upper [layers, 1 or experts, columns, columns], pivots and diagonal [layers, 1 or experts,
// columns]).
PackFeedback feedback_from(const PackSource& source, const py::handle& value, Arrays& arrays) {
  PackFeedback feedback;
  const auto parts = value.cast<py::tuple>();
  for (const py::handle& part : parts) arrays.factors.push_back(part.cast<FloatArray>());
  if (parts.size() != 3) throw Error(ErrorCode::kArgument, "covariances are three arrays");
  const FloatArray& diagonal = arrays.factors.back();
  const FloatArray& pivots = arrays.factors[arrays.factors.size() - 2];
  const FloatArray& upper = arrays.factors[arrays.factors.size() - 3];
  if (diagonal.ndim() != 3 || upper.ndim() != 4 || diagonal.shape(0) != source.num_layers()) {
    throw Error(ErrorCode::kArgument, "the profile's covariances are of another model");
  }
  feedback.upper = floats(upper);
  feedback.pivots = floats(pivots);
  feedback.diagonal = floats(diagonal);
  feedback.per_layer = static_cast<uint64_t>(diagonal.shape(1));
  return feedback;
}

PackRequest request_from(const PackSource& source, const py::dict& values, Arrays& arrays) {
  PackRequest request;
  for (const auto& [key_object, value] : values) {
    const auto key = key_object.cast<std::string>();
    if (key == "output") {
      request.output = value.cast<std::filesystem::path>().string();
    } else if (key == "stock_layout") {
      request.format = value.cast<bool>() ? PackFormat::kStock : PackFormat::kContainer;
    } else if (key == "experts") {
      set_expert_types(source, value, request);
    } else if (key == "low_copies" && !value.is_none()) {
      set_low_types(source, value, request);
    } else if (key == "dense") {
      for (const auto& [name, type] : value.cast<std::map<std::string, std::string>>()) {
        request.dense_types.emplace(name, type_from(type));
      }
    } else if (key == "input_importance" && !value.is_none()) {
      arrays.input = value.cast<FloatArray>();
      request.importance.expert_input = floats(arrays.input);
    } else if (key == "hidden_importance" && !value.is_none()) {
      arrays.hidden = value.cast<FloatArray>();
      request.importance.expert_hidden = floats(arrays.hidden);
    } else if (key == "input_feedback" && !value.is_none()) {
      request.importance.input_feedback = feedback_from(source, value, arrays);
    } else if (key == "hidden_feedback" && !value.is_none()) {
      request.importance.hidden_feedback = feedback_from(source, value, arrays);
    } else if (key == "tensor_importance") {
      arrays.tensors = value.cast<std::map<std::string, FloatArray>>();
      for (const auto& [name, array] : arrays.tensors) {
        request.importance.tensors.emplace(name, floats(array));
      }
    } else if (key == "metadata") {
      for (const auto& [name, one] : value.cast<py::dict>()) {
        request.metadata.emplace_back(name.cast<std::string>(), metadata_value(one));
      }
    } else if (key == "threads") {
      request.num_threads = value.cast<uint32_t>();
    } else if (key == "memory") {
      request.memory_bytes = value.cast<uint64_t>();
    } else if (key == "max_shard") {
      request.max_shard_bytes = value.cast<uint64_t>();
    } else if (key == "overwrite") {
      request.overwrite = value.cast<bool>();
    } else if (key == "resume") {
      request.resume = value.cast<bool>();
    } else if (!value.is_none()) {
      throw Error(ErrorCode::kArgument, "unknown pack option '" + key + "'");
    }
  }
  return request;
}

py::dict dict_of(const PackResult& result) {
  py::list losses;
  for (const PackLoss& loss : result.losses) {
    py::dict one;
    one["type"] = std::string(traits(loss.type).name);
    one["weights"] = loss.num_weights;
    one["relative_error"] = loss.relative_error;
    one["from_quantized"] = loss.from_quantized;
    losses.append(one);
  }
  py::dict dict;
  dict["paths"] = path_list(result.paths);
  dict["output_bytes"] = result.output_bytes;
  dict["expert_weights"] = result.expert_weights;
  dict["expert_bytes"] = result.expert_bytes;
  dict["low_copies"] = result.num_low_copies;
  dict["low_copy_weights"] = result.low_copy_weights;
  dict["low_copy_bytes"] = result.low_copy_bytes;
  dict["dense_weights"] = result.dense_weights;
  dict["dense_bytes"] = result.dense_bytes;
  dict["losses"] = losses;
  dict["read_bytes"] = result.read_bytes;
  dict["written_bytes"] = result.written_bytes;
  dict["weights"] = result.num_weights;
  dict["quantized_weights"] = result.quantized_weights;
  dict["resumed_weights"] = result.resumed_weights;
  dict["seconds"] = result.seconds;
  return dict;
}

// progress(weights done, weights in all, of those done by an earlier run) may be None.
py::dict pack(const PackSource& source, const py::dict& values, const py::object& progress) {
  Arrays arrays;
  const PackRequest request = request_from(source, values, arrays);
  bool raised = false;
  const PackWatcher watcher = [&](const PackProgress& now) {
    const py::gil_scoped_acquire acquired;
    raised = PyErr_CheckSignals() != 0;
    if (raised || progress.is_none()) return raised;
    try {
      progress(now.weights_done, now.num_weights, now.resumed_weights);
    } catch (py::error_already_set& error) {
      error.restore();
      raised = true;
    }
    return raised;
  };
  PackResult result;
  try {
    const py::gil_scoped_release released;
    result = pack_model(source, request, watcher);
  } catch (const Error&) {
    if (raised) throw py::error_already_set();
    throw;
  }
  return dict_of(result);
}

}  // namespace

void bind_pack(py::module_& module) {
  module.def("quant_types", quant_types, "The names of all quantisation types.");
  module.def(
      "block_elements",
      [](const std::string& type) { return traits(type_from(type)).block_elements; },
      py::arg("type"));
  py::class_<PackSource>(module, "PackSource", "A model that is to be packed.")
      .def(py::init([](const std::filesystem::path& path) {
             const py::gil_scoped_release released;
             return std::make_unique<PackSource>(path.string());
           }),
           py::arg("path"))
      .def("expert_matrices", expert_matrices,
           "Per layer None, or for gate, up and down None or (columns, rows, types by expert).")
      .def("dense_tensors", dense_tensors, "(name, type, columns, rows, may be quantised)")
      .def_property_readonly("architecture", &PackSource::architecture)
      .def_property_readonly("name", [](const PackSource& one) { return text_of(one.name()); })
      .def_property_readonly("num_layers", &PackSource::num_layers)
      .def_property_readonly("num_experts", &PackSource::num_experts)
      .def_property_readonly("is_packed", &PackSource::is_packed)
      .def_property_readonly("file_bytes",
                             [](const PackSource& one) { return one.gguf().file_bytes(); })
      .def_property_readonly("paths",
                             [](const PackSource& one) { return path_list(one.gguf().paths()); });
  module.def("pack_model", pack, py::arg("source"), py::arg("options"),
             py::arg("progress") = py::none());
}

}  // namespace edgemoe
