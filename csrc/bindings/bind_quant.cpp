// Quantisation for Python: arrays of float32 to GGUF bytes and back.
#include <pybind11/numpy.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "bindings/bindings.h"
#include "engine/system_memory.h"
#include "quant/error_feedback.h"
#include "quant/quantize.h"
#include "quant/unpack.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;

QuantType known_type(const std::string& name) {
  const std::optional<QuantType> type = quant_type_from_name(name);
  if (!type) {
    throw Error(ErrorCode::kArgument,
                "unknown quantisation type '" + name + "': names are as in GGUF, e.g. Q4_K");
  }
  return *type;
}

std::string quantizable_names() {
  std::string names;
  for (const QuantTraits& one : all_quant_types()) {
    if (can_quantize(one.type)) names += (names.empty() ? "" : ", ") + std::string(one.name);
  }
  return names;
}

QuantType quantizable_type(const std::string& name) {
  const std::optional<QuantType> type = quant_type_from_name(name);
  if (!type || !can_quantize(*type)) {
    throw Error(ErrorCode::kArgument, "cannot quantise to '" + name +
                                          "': the types that can be written are " +
                                          quantizable_names());
  }
  return *type;
}

void check_columns(QuantType type, uint64_t columns) {
  const QuantTraits& one = traits(type);
  if (columns % one.block_elements != 0) {
    throw Error(ErrorCode::kArgument,
                std::string(one.name) + " has blocks of " + std::to_string(one.block_elements) +
                    " weights, which rows of " + std::to_string(columns) + " do not divide into");
  }
}

// The matrix that is quantised. Rows are independent, so that threads take runs of them.
struct Source {
  QuantType type;
  const float* weights;
  size_t rows;
  size_t columns;
  const float* importance;  // [columns] or null
  FeedbackFactor factor;    // no feedback where upper is null
};

void check_importance(const Source& source) {
  if (source.importance == nullptr) return;
  for (size_t c = 0; c < source.columns; ++c) {
    if (std::isfinite(source.importance[c]) && source.importance[c] >= 0.0f) continue;
    throw Error(ErrorCode::kArgument,
                "importance of column " + std::to_string(c) + " is negative or not finite");
  }
}

bool all_finite(const float* values, size_t count) noexcept {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7FFFFFFFu);
  }
  return largest < 0x7F800000u;
}

// Errors: kArgument naming the first row that has a weight that is not finite.
void quantize_rows(const Source& source, size_t threads, std::byte* out) {
  check_importance(source);
  const uint64_t bytes = row_bytes(source.type, source.columns);
  const bool feeds_back = source.factor.upper != nullptr;
  const size_t run =
      feeds_back ? kFeedbackRows : std::max<size_t>(1, 65536 / std::max<size_t>(1, source.columns));
  const size_t num_runs = (source.rows + run - 1) / run;
  std::atomic<size_t> bad_row{source.rows};
  ThreadPool pool(std::min(std::max<size_t>(1, threads), std::max<size_t>(1, num_runs)));
  std::vector<AlignedBuffer> scratch;
  for (size_t thread = 0; feeds_back && thread < pool.num_threads(); ++thread) {
    scratch.emplace_back(feedback_scratch_bytes(source.columns));
  }
  pool.parallel_for(num_runs, [&](size_t item, size_t thread) {
    const size_t first = item * run;
    const size_t last = std::min(source.rows, first + run);
    for (size_t row = first; row < last; ++row) {
      const float* weights = source.weights + row * source.columns;
      if (!all_finite(weights, source.columns)) {
        size_t known = bad_row.load();
        while (row < known && !bad_row.compare_exchange_weak(known, row)) {
        }
        return;
      }
      if (feeds_back) continue;
      quantize_row(source.type, weights, source.columns, source.importance, out + row * bytes);
    }
    if (!feeds_back) return;
    quantize_with_feedback(
        source.type,
        {source.weights + first * source.columns, last - first, source.columns, source.importance},
        source.factor, out + first * bytes, scratch[thread].data());
  });
  if (bad_row.load() == source.rows) return;
  throw Error(ErrorCode::kArgument, "row " + std::to_string(bad_row.load()) +
                                        " has a weight that is not finite: it cannot be quantised");
}

// Errors: kArgument when the value is no array of numbers.
FloatArray floats_from(const py::object& value, const char* what) {
  FloatArray array = FloatArray::ensure(value);
  if (!array) {
    PyErr_Clear();
    throw Error(ErrorCode::kArgument, std::string(what) + " must be an array of float32");
  }
  return array;
}

py::bytes quantize(const std::string& name, const py::object& values, const py::object& importance,
                   uint32_t threads, const py::object& feedback) {
  const QuantType type = quantizable_type(name);
  const FloatArray weights = floats_from(values, "weights");
  if (weights.ndim() != 2) {
    throw Error(ErrorCode::kArgument, "weights must be an array [rows, columns], not of " +
                                          std::to_string(weights.ndim()) + " dimensions");
  }
  Source source{type,
                weights.data(),
                static_cast<size_t>(weights.shape(0)),
                static_cast<size_t>(weights.shape(1)),
                nullptr,
                {}};
  check_columns(type, source.columns);
  FloatArray per_column;
  if (!importance.is_none()) {
    per_column = floats_from(importance, "importance");
    if (per_column.ndim() != 1 || static_cast<size_t>(per_column.size()) != source.columns) {
      throw Error(ErrorCode::kArgument, "importance must have one value for each of the " +
                                            std::to_string(source.columns) + " columns");
    }
    source.importance = per_column.data();
  }
  FloatArray factor;
  if (!feedback.is_none()) {
    factor = floats_from(feedback, "feedback");
    const auto columns = static_cast<py::ssize_t>(source.columns);
    if (factor.ndim() != 2 || factor.shape(0) != columns || factor.shape(1) != columns) {
      throw Error(ErrorCode::kArgument, "feedback must be an array [columns, columns]");
    }
    if (!can_feed_back(type)) {
      throw Error(ErrorCode::kArgument, name + " has codebooks, which take no feedback");
    }
    if (!all_finite(factor.data(), source.columns * source.columns)) {
      throw Error(ErrorCode::kArgument, "feedback has a value that is not finite");
    }
    source.factor.upper = factor.data();
  }
  const size_t workers = threads != 0 ? threads : usable_cpus();
  const uint64_t total = source.rows * row_bytes(type, source.columns);
  py::bytes result(static_cast<const char*>(nullptr), total);
  auto* out = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(result.ptr()));
  {
    const py::gil_scoped_release released;
    quantize_rows(source, workers, out);
  }
  return result;
}

FloatArray dequantize_matrix(const std::string& name, const py::bytes& data, size_t rows,
                             size_t columns) {
  const QuantType type = known_type(name);
  check_columns(type, columns);
  const std::string_view view(data);
  const uint64_t bytes = row_bytes(type, columns);
  const bool fits = bytes == 0 || rows == 0
                        ? view.empty()
                        : view.size() % bytes == 0 && view.size() / bytes == rows;
  if (!fits) {
    throw Error(ErrorCode::kArgument, std::to_string(view.size()) + " bytes are not " +
                                          std::to_string(rows) + " rows of " +
                                          std::to_string(columns) + " " + name + " weights");
  }
  FloatArray result({rows, columns});
  float* out = result.mutable_data();
  const py::gil_scoped_release released;
  for (size_t row = 0; row < rows; ++row) {
    const auto* from = reinterpret_cast<const std::byte*>(view.data()) + row * bytes;
    dequantize(type, from, columns, out + row * columns);
  }
  return result;
}

}  // namespace

void bind_quant(py::module_& module) {
  module.def("quantize", quantize, py::arg("type"), py::arg("weights"),
             py::arg("importance") = py::none(), py::arg("threads") = 0,
             py::arg("feedback") = py::none(),
             "Rows of float32 as GGUF bytes; importance weighs the squared error of each column,"
             " feedback [columns, columns] says what later columns make up for.");
  module.def("dequantize", dequantize_matrix, py::arg("type"), py::arg("data"), py::arg("rows"),
             py::arg("columns"));
  module.def(
      "block_shape",
      [](const std::string& name) {
        const QuantTraits& one = traits(known_type(name));
        return py::make_tuple(one.block_elements, one.block_bytes);
      },
      py::arg("type"), "Weights and bytes of a block.");
  module.def("can_quantize", [](const std::string& name) {
    const std::optional<QuantType> type = quant_type_from_name(name);
    return type && can_quantize(*type);
  });
}

}  // namespace edgemoe
