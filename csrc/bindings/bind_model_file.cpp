#include <pybind11/stl.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/units.h"
#include "bindings/bindings.h"
#include "bindings/conversions.h"
#include "bindings/interruptible.h"
#include "model/architectures.h"
#include "model/recurrent_state.h"
#include "weights/checksums.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

const char* name_of(RouterScore score) {
  switch (score) {
    case RouterScore::kSoftmax:
      return "softmax";
    case RouterScore::kSigmoid:
      return "sigmoid";
    case RouterScore::kSoftmaxTopK:
      return "softmax of the chosen";
    case RouterScore::kSqrtSoftplus:
      return "sqrt(softplus)";
  }
  return "";
}

const char* name_of(AttentionKind kind) {
  switch (kind) {
    case AttentionKind::kGrouped:
      return "grouped";
    case AttentionKind::kLatent:
      return "latent";
    case AttentionKind::kShortConvolution:
      return "short convolution";
    case AttentionKind::kDeltaNet:
      return "gated delta net";
    case AttentionKind::kMamba2:
      return "mamba 2";
    case AttentionKind::kMamba:
      return "mamba";
    case AttentionKind::kNone:
      return "none";
  }
  return "";
}

// Layers of each kind of attention.
std::map<std::string, uint32_t> attention_kinds(const ModelSpec& spec) {
  std::map<std::string, uint32_t> kinds;
  for (const LayerSpec& layer : spec.layers) ++kinds[name_of(layer.attention.kind)];
  return kinds;
}

// Of the first layer that has keys and values, or of the first.
const AttentionSpec& attention_of(const ModelSpec& spec) {
  for (const LayerSpec& layer : spec.layers) {
    const AttentionKind kind = layer.attention.kind;
    if (!is_recurrent(kind) && kind != AttentionKind::kNone) return layer.attention;
  }
  return spec.layers.front().attention;
}

py::dict spec_of(const ModelFile& file) {
  const ModelSpec& spec = file.spec();
  py::dict dict;
  dict["architecture"] = spec.architecture;
  dict["name"] = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(spec.name.data(), static_cast<Py_ssize_t>(spec.name.size()), "replace"));
  dict["layers"] = spec.num_layers;
  dict["encoder_layers"] = spec.num_encoder_layers;
  dict["decoder_start_token"] =
      spec.has_encoder() ? py::object(py::int_(spec.decoder_start_token)) : py::none();
  dict["width"] = spec.width;
  dict["vocabulary"] = spec.vocab_size;
  dict["trained_context"] = spec.trained_context;
  dict["experts"] = spec.router.num_experts;
  dict["experts_used"] = spec.router.num_used;
  dict["router"] = spec.is_moe() ? py::object(py::str(name_of(spec.router.score))) : py::none();
  const AttentionSpec& attention = attention_of(spec);
  dict["attention"] = name_of(attention.kind);
  dict["attention_layers"] = attention_kinds(spec);
  dict["heads"] = attention.num_heads;
  dict["kv_heads"] = attention.num_kv_heads;
  return dict;
}

double bits_per_weight(uint64_t bytes, uint64_t weights) {
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

// Low copies of all layers; None for a file without them.
py::object low_copies_of(const ModelFile& file) {
  if (!file.has_low_copies()) return py::none();
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), kAssumedAlignment, true);
  uint64_t copies = 0;
  uint64_t bytes = 0;
  uint64_t weights = 0;
  std::map<std::string, uint32_t> types;
  for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
    for (uint32_t expert = 0; expert < layout.num_experts(); ++expert) {
      const uint32_t number = layout.low_copy_of(layer, expert);
      if (number == expert) continue;
      ++copies;
      bytes += layout.place(layer, number).weight_bytes;
      for (const ExpertMatrixPlace& matrix : layout.place(layer, number).matrices) {
        if (!matrix.present) continue;
        weights += uint64_t{matrix.rows} * matrix.columns;
        ++types[std::string(traits(matrix.type).name)];
      }
    }
  }
  py::dict dict;
  dict["version"] = kLowCopyVersion;
  dict["copies"] = copies;
  dict["bytes"] = bytes;
  dict["bits_per_weight"] = bits_per_weight(bytes, std::max<uint64_t>(weights, 1));
  dict["matrices"] = types;
  return dict;
}

// Bytes and bits of the experts of each layer that has some; of each expert where they differ.
py::list experts_of(const ModelFile& file) {
  py::list layers;
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), kAssumedAlignment);
  for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
    if (!layout.is_moe(layer)) continue;
    uint64_t bytes = 0;
    uint64_t weights = 0;
    std::map<std::string, uint32_t> types;
    std::vector<double> bits;
    for (uint32_t expert = 0; expert < layout.num_experts(); ++expert) {
      const ExpertPlace& place = layout.place(layer, expert);
      uint64_t expert_weights = 0;
      for (const ExpertMatrixPlace& matrix : place.matrices) {
        if (!matrix.present) continue;
        expert_weights += uint64_t{matrix.rows} * matrix.columns;
        ++types[std::string(traits(matrix.type).name)];
      }
      bytes += place.weight_bytes;
      weights += expert_weights;
      bits.push_back(bits_per_weight(place.weight_bytes, expert_weights));
    }
    py::dict dict;
    dict["layer"] = layer;
    dict["bytes_per_expert"] = bytes / layout.num_experts();
    dict["bits_per_weight"] = bits_per_weight(bytes, weights);
    dict["bits_by_expert"] = bits;
    dict["matrices"] = types;
    layers.append(dict);
  }
  return layers;
}

// Bytes of one expert (the mean where they differ) and of the dense weights, of every layer.
py::list layer_bytes_of(const ModelFile& file) {
  py::list layers;
  const ExpertLayout layout = expert_layout(file.spec(), file.tensors(), kAssumedAlignment);
  for (uint32_t layer = 0; layer < file.spec().num_layers; ++layer) {
    uint64_t expert_bytes = 0;
    for (uint32_t expert = 0; layout.is_moe(layer) && expert < layout.num_experts(); ++expert) {
      expert_bytes += layout.place(layer, expert).weight_bytes;
    }
    uint64_t dense_bytes = 0;
    for (const BoundTensor& tensor : file.tensors().layers[layer].dense) {
      dense_bytes += tensor ? tensor.info->bytes : 0;
    }
    layers.append(py::make_tuple(expert_bytes / std::max(1u, layout.num_experts()), dense_bytes));
  }
  return layers;
}

// Bytes of all tensors by type.
std::map<std::string, uint64_t> bytes_by_type(const ModelFile& file) {
  std::map<std::string, uint64_t> bytes;
  for (const TensorInfo& tensor : file.gguf().tensors()) {
    bytes[std::string(traits(tensor.type).name)] += tensor.bytes;
  }
  return bytes;
}

// What a packed container says of itself; None for a stock file.
py::object packed_of(const ModelFile& file) {
  if (!file.packed()) return py::none();
  const auto text = [](const std::string& bytes) {
    return py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
        bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "backslashreplace"));
  };
  py::dict dict;
  dict["format_version"] = kContainerFormat;
  dict["layout_version"] = kContainerLayout;
  dict["plan"] = text(file.packed()->plan);
  dict["source"] = text(file.packed()->source);
  return dict;
}

const PackedContainer& checksums_of(const ModelFile& file) {
  if (file.packed()) return *file.packed();
  throw Error(ErrorCode::kArgument, file.gguf().paths()[0] +
                                        ": has no checksums to verify; only files written by "
                                        "edgemoe pack have them");
}

// Reads everything; `progress` is told of bytes. The first damaged part as a message, or None.
py::dict verify(const ModelFile& file, const py::function& progress) {
  const PackedContainer& container = checksums_of(file);
  ChecksumReport report;
  run_interruptibly([&](const auto& should_stop) {
    report = verify_checksums(file.gguf(), file.tensors(), container, ChecksumScope::kAll,
                              [&](uint64_t bytes) {
                                const py::gil_scoped_acquire acquired;
                                progress(bytes);
                                return should_stop();
                              });
  });
  py::dict dict;
  dict["experts"] = report.num_experts;
  dict["low_copies"] = report.num_low_copies;
  dict["dense_tensors"] = report.num_dense_tensors;
  dict["bytes"] = report.bytes;
  dict["damaged"] = report.num_damaged;
  dict["first_damaged"] = py::none();
  if (!report.first_damaged) return dict;
  const DamagedPart& part = *report.first_damaged;
  py::dict first;
  first["message"] = describe(part);
  first["tensor"] = part.tensor.empty() ? py::object(py::none()) : py::str(part.tensor);
  first["layer"] = part.tensor.empty() ? py::object(py::int_(part.layer)) : py::none();
  first["expert"] = part.tensor.empty() ? py::object(py::int_(part.expert)) : py::none();
  first["low_copy"] = part.low_copy;
  dict["first_damaged"] = first;
  return dict;
}

}  // namespace

void bind_model_file(py::module_& module) {
  module.def(
      "architectures",
      [] {
        std::vector<std::string_view> names;
        for (const ArchitectureRow& row : architectures()) names.push_back(row.name);
        return names;
      },
      "Architectures that this version runs.");
  py::class_<ModelFile>(module, "ModelFile")
      .def(py::init([](const std::string& path) {
             py::gil_scoped_release released;
             auto file = std::make_unique<ModelFile>(path);
             file->gguf().drop_vocabulary();
             return file;
           }),
           py::arg("path"))
      .def("spec", spec_of)
      .def("experts", experts_of)
      .def("low_copies", low_copies_of)
      .def("layer_bytes", layer_bytes_of)
      .def("bytes_by_type", bytes_by_type)
      .def("packed", packed_of)
      .def("checksum_bytes",
           [](const ModelFile& file) {
             checksums_of(file);
             return checksum_bytes(file.gguf(), file.tensors(), ChecksumScope::kAll);
           })
      .def("verify", verify, py::arg("progress"))
      .def("plan",
           [](const ModelFile& file, const py::dict& options) {
             return dict_of(file.plan(options_from(options)));
           })
      .def("describe_plan",
           [](const ModelFile& file, const py::dict& options) {
             return describe(file.plan(options_from(options)));
           })
      .def_property_readonly("file_bytes",
                             [](const ModelFile& file) { return file.gguf().file_bytes(); })
      .def_property_readonly("paths", [](const ModelFile& file) {
        return std::vector<std::string>(file.gguf().paths().begin(), file.gguf().paths().end());
      });
}

}  // namespace edgemoe
