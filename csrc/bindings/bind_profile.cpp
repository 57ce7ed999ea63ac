// Python classes ExpertStatistics, the sums of a calibration pass as numpy arrays, and
// QuantizationError.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "base/should_stop.h"
#include "bindings/bindings.h"
#include "bindings/interruptible.h"
#include "bitwidth/expert_statistics.h"
#include "bitwidth/quantization_error.h"
#include "engine/engine.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

// Arrays over the sums themselves: they change with them, and what is written there is counted on.
py::dict sums_of(const py::object& self) {
  auto& statistics = self.cast<ExpertStatistics&>();
  const StatisticsShape& shape = statistics.shape();
  py::dict dict;
  const auto add = [&](const char* name, std::span<double> values, std::vector<size_t> sizes) {
    dict[name] = py::array_t<double>(std::move(sizes), values.data(), self);
  };
  const size_t layers = shape.num_layers;
  const size_t experts = shape.num_experts;
  add("counts", statistics.counts(), {layers, experts});
  add("mass", statistics.mass(), {layers, experts});
  add("weight_squared", statistics.weight_squared(), {layers, experts});
  add("input", statistics.input(), {layers, experts, shape.width});
  add("hidden", statistics.hidden(), {layers, experts, shape.expert_width});
  add("gate_slope", statistics.gate_slope(), {layers, experts, shape.expert_width});
  add("up_slope", statistics.up_slope(), {layers, experts, shape.expert_width});
  const auto add_covariance = [&](const char* name, std::span<float> values, size_t columns) {
    const size_t count = values.size() / (columns * columns);
    dict[name] = py::array_t<float>({count, columns, columns}, values.data(), self);
  };
  add_covariance("input_covariance", statistics.input_covariance(), shape.width);
  add_covariance("hidden_covariance", statistics.hidden_covariance(), shape.expert_width);
  add("output_power", statistics.output_power(), {layers});
  add("residual_power", statistics.residual_power(), {layers});
  return dict;
}

py::dict shape_of(const ModelFile& file) {
  const StatisticsShape shape = statistics_shape(file.spec());
  py::dict dict;
  dict["width"] = shape.width;
  dict["expert_width"] = shape.expert_width;
  dict["residual_scale"] = file.spec().residual_scale;
  return dict;
}

double bits_per_weight(const std::string& name) {
  const std::optional<QuantType> type = quant_type_from_name(name);
  if (!type) throw Error(ErrorCode::kArgument, "unknown quantisation type '" + name + "'");
  return 8.0 * traits(*type).block_bytes / traits(*type).block_elements;
}

py::array_t<int16_t> take_routes(ExpertStatistics& statistics) {
  const StatisticsShape& shape = statistics.shape();
  const std::vector<int16_t> routes = statistics.take_routes();
  const size_t rows = routes.size() / (shape.num_layers * shape.num_used);
  return py::array_t<int16_t>({rows, shape.num_layers, shape.num_used}, routes.data());
}

CovarianceScope scope_from(const std::string& name) {
  if (name == "none") return CovarianceScope::kNone;
  if (name == "layers") return CovarianceScope::kLayers;
  if (name == "experts") return CovarianceScope::kExperts;
  throw Error(ErrorCode::kArgument, "covariance is none, layers or experts, not '" + name + "'");
}

using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

class ErrorMeter {
 public:
  ErrorMeter(const ModelFile& file, const std::vector<std::string>& candidates, size_t rows,
             size_t threads)
      : shape_(statistics_shape(file.spec())),
        num_candidates_(candidates.size()),
        meter_(types_from(candidates), rows, std::max(shape_.width, shape_.expert_width), threads) {
  }

  static std::vector<QuantType> types_from(const std::vector<std::string>& names) {
    std::vector<QuantType> types;
    for (const std::string& name : names) {
      const std::optional<QuantType> type = quant_type_from_name(name);
      if (!type) {
        throw Error(ErrorCode::kArgument, "unknown quantisation type '" + name + "'");
      }
      types.push_back(*type);
    }
    return types;
  }

  // factors: none, or those of the layer's inputs and hidden units, each (upper, pivots, diagonal)
  // of [1 or experts, ...]; one matrix for all experts is scaled to each expert's importance.
  py::tuple measure(Engine& engine, uint32_t layer, uint32_t first, uint32_t count,
                    const py::tuple& sums, const py::object& factors) {
    const LayerFactors layer_factors = factors_from(factors);
    const Floats input = checked<Floats>(sums[0], shape_.width);
    const Floats hidden = checked<Floats>(sums[1], shape_.expert_width);
    const Floats gate_slope = checked<Floats>(sums[2], shape_.expert_width);
    const Floats up_slope = checked<Floats>(sums[3], shape_.expert_width);
    const Doubles weight_squared = checked<Doubles>(sums[4], 1);
    Doubles errors({size_t{count}, kNumExpertMatrices, num_candidates_});
    Floats row_weights({size_t{2}, size_t{count}, shape_.expert_width});
    std::fill_n(row_weights.mutable_data(), row_weights.size(), 0.0f);
    double* error_data = errors.mutable_data();
    float* weight_data = row_weights.mutable_data();
    const auto visit = [&](ThreadPool& pool, const ReadyExpert& ready) {
      const size_t expert = ready.id.expert;
      const size_t place = expert - first;
      ExpertImportance importance;
      importance.input = input.data() + expert * shape_.width;
      importance.hidden = hidden.data() + expert * shape_.expert_width;
      importance.gate_slope = gate_slope.data() + expert * shape_.expert_width;
      importance.up_slope = up_slope.data() + expert * shape_.expert_width;
      importance.weight_squared = weight_squared.data()[expert];
      std::vector<float> scale;
      importance.input_factor = factor_of(layer_factors.input, expert, importance.input, scale);
      std::vector<float> hidden_scale;
      if (ready.matrices.back().columns == shape_.expert_width) {
        importance.hidden_factor =
            factor_of(layer_factors.hidden, expert, importance.hidden, hidden_scale);
      }
      ExpertErrorPlaces places;
      places.errors = error_data + place * kNumExpertMatrices * num_candidates_;
      places.gate_row_weight = weight_data + place * shape_.expert_width;
      places.up_row_weight = weight_data + (count + place) * shape_.expert_width;
      if (meter_.measure(pool, ready.matrices, importance, places)) return;
      throw Error(ErrorCode::kFormat, "layer " + std::to_string(layer) + ", expert " +
                                          std::to_string(expert) +
                                          ": a weight is not a finite number; the file is damaged");
    };
    run_interruptibly([&](const ShouldStop& should_stop) {
      engine.visit_experts(layer, first, count, visit, should_stop);
    });
    return py::make_tuple(errors, row_weights);
  }

 private:
  struct Factors {
    Floats upper;     // [1 or experts][columns][columns]
    Floats pivots;    // [1 or experts][columns]
    Floats diagonal;  // [1 or experts][columns]
    size_t columns = 0;
    size_t count = 0;
  };
  struct LayerFactors {
    Factors input;
    Factors hidden;
  };

  // (upper, pivots, diagonal)
  Factors checked_factors(const py::handle& value, size_t columns) const {
    const auto parts = value.cast<py::tuple>();
    Factors factors;
    factors.upper = parts[0].cast<Floats>();
    factors.pivots = parts[1].cast<Floats>();
    factors.diagonal = parts[2].cast<Floats>();
    factors.columns = columns;
    factors.count = static_cast<size_t>(factors.pivots.size()) / columns;
    if (static_cast<size_t>(factors.pivots.size()) != factors.count * columns ||
        factors.diagonal.size() != factors.pivots.size() ||
        static_cast<size_t>(factors.upper.size()) != factors.count * columns * columns ||
        (factors.count > 1 && factors.count != shape_.num_experts)) {
      throw Error(ErrorCode::kArgument,
                  "the factors of a layer have another size than its experts");
    }
    return factors;
  }

  LayerFactors factors_from(const py::object& value) const {
    LayerFactors factors;
    if (value.is_none()) return factors;
    const auto parts = value.cast<py::tuple>();
    factors.input = checked_factors(parts[0], shape_.width);
    factors.hidden = checked_factors(parts[1], shape_.expert_width);
    return factors;
  }

  static CovarianceFactor factor_of(const Factors& factors, size_t expert, const float* importance,
                                    std::vector<float>& scale) {
    CovarianceFactor result;
    if (factors.count == 0) return result;
    const size_t index = factors.count == 1 ? 0 : expert;
    result.factor.upper = factors.upper.data() + index * factors.columns * factors.columns;
    result.pivots = factors.pivots.data() + index * factors.columns;
    result.factor.pivots = result.pivots;
    if (factors.count == 1) {
      scale.resize(factors.columns);
      scale_to_importance(factors.diagonal.data(), importance, factors.columns, scale.data());
      result.factor.scale = scale.data();
    }
    return result;
  }

  template <class Array>
  Array checked(const py::handle& value, size_t row) const {
    auto array = value.cast<Array>();
    if (static_cast<size_t>(array.size()) != shape_.num_experts * row) {
      throw Error(ErrorCode::kArgument, "the sums of a layer have another size than its experts");
    }
    return array;
  }

  StatisticsShape shape_;
  size_t num_candidates_;
  QuantizationError meter_;
};

}  // namespace

void bind_profile(py::module_& module) {
  py::class_<ExpertStatistics>(module, "ExpertStatistics")
      .def(py::init([](const ModelFile& file, size_t batch, size_t threads,
                       const std::string& covariance) {
             return std::make_unique<ExpertStatistics>(file.spec(), batch, threads,
                                                       scope_from(covariance));
           }),
           py::arg("file"), py::arg("batch"), py::arg("threads"), py::arg("covariance") = "none")
      .def_static(
          "bytes",
          [](const ModelFile& file, size_t batch, size_t threads, const std::string& covariance) {
            return ExpertStatistics::bytes(file.spec(), batch, threads, scope_from(covariance));
          },
          py::arg("file"), py::arg("batch"), py::arg("threads"), py::arg("covariance") = "none")
      .def_static("shape", shape_of, py::arg("file"))
      .def("sums", sums_of, "The sums by name, float64, in place.")
      .def("take_routes", take_routes,
           "The experts of the rows since the last call, [rows, layers, used], -1 where none.");
  module.def("bits_per_weight", bits_per_weight, py::arg("type"));
  py::class_<ErrorMeter>(module, "QuantizationError")
      .def(py::init<const ModelFile&, const std::vector<std::string>&, size_t, size_t>(),
           py::arg("file"), py::arg("candidates"), py::arg("rows"), py::arg("threads"))
      .def_static(
          "bytes",
          [](const ModelFile& file, size_t num_candidates, size_t threads) {
            const StatisticsShape shape = statistics_shape(file.spec());
            return QuantizationError::bytes(std::max(shape.width, shape.expert_width),
                                            num_candidates, threads);
          },
          py::arg("file"), py::arg("num_candidates"), py::arg("threads"))
      .def("measure", &ErrorMeter::measure, py::arg("engine"), py::arg("layer"), py::arg("first"),
           py::arg("count"), py::arg("sums"), py::arg("factors") = py::none(),
           "Errors [count, 3, candidates] and row weights [2, count, units] of some experts of a "
           "layer, whose sums (input, hidden, gate_slope, up_slope, weight_squared) are given.");
}

}  // namespace edgemoe
