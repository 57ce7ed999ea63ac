#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>

#include "base/error.h"
#include "base/should_stop.h"
#include "bindings/bindings.h"
#include "bindings/conversions.h"
#include "bindings/interruptible.h"
#include "bitwidth/expert_statistics.h"
#include "engine/benchmark.h"
#include "engine/sampler.h"

namespace py = pybind11;

namespace edgemoe {
namespace {

using Tokens = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

// `generated`: whether tokens are generated ones; none: a single token is.
void evaluate(Session& session, const Tokens& tokens, std::optional<bool> generated) {
  if (tokens.ndim() != 1) throw Error(ErrorCode::kArgument, "tokens must have one dimension");
  const std::span<const int32_t> span(tokens.data(), static_cast<size_t>(tokens.size()));
  std::optional<Phase> phase;
  if (generated) phase = *generated ? Phase::kDecode : Phase::kPrefill;
  run_interruptibly([&](const ShouldStop& stop) { session.evaluate(span, stop, phase); });
}

void encode(Session& session, const Tokens& tokens) {
  if (tokens.ndim() != 1) throw Error(ErrorCode::kArgument, "tokens must have one dimension");
  const std::span<const int32_t> span(tokens.data(), static_cast<size_t>(tokens.size()));
  run_interruptibly([&](const ShouldStop& stop) { session.encode(span, stop); });
}

void evaluate_windows(Session& session, const Tokens& tokens, uint32_t window) {
  if (tokens.ndim() != 1) throw Error(ErrorCode::kArgument, "tokens must have one dimension");
  const std::span<const int32_t> span(tokens.data(), static_cast<size_t>(tokens.size()));
  run_interruptibly([&](const ShouldStop& stop) { session.evaluate_windows(span, window, stop); });
}

void observe_experts(Engine& engine, ExpertStatistics* statistics) {
  const py::gil_scoped_release released;
  engine.observe_experts(statistics);
}

Floats logits(Session& session, const Engine& engine, uint32_t first, uint32_t count) {
  const uint32_t vocab_size = engine.spec().vocab_size;
  Floats out({py::ssize_t{count}, py::ssize_t{vocab_size}});
  const std::span<float> span(out.mutable_data(), static_cast<size_t>(out.size()));
  const py::gil_scoped_release released;
  session.logits(first, count, span);
  return out;
}

py::dict take_trace(Engine& engine) {
  TraceEvents events;
  {
    const py::gil_scoped_release released;
    events = engine.take_trace();
  }
  py::dict dict;
  dict["routing"] = py::array_t<RoutingEvent>(static_cast<py::ssize_t>(events.routing.size()),
                                              events.routing.data());
  dict["layers"] =
      py::array_t<LayerEvent>(static_cast<py::ssize_t>(events.layers.size()), events.layers.data());
  dict["complete"] = events.complete;
  return dict;
}

// (wanted, named) by distance in layers.
std::vector<std::pair<uint64_t, uint64_t>> router_recall(const Engine& engine) {
  const py::gil_scoped_release released;
  std::vector<std::pair<uint64_t, uint64_t>> counts;
  for (const RouterRecall::Count& count : engine.router_recall()) {
    counts.emplace_back(count.wanted, count.named);
  }
  return counts;
}

// A running step holds the engine and asks for the GIL: who waits for the engine must not have it.
py::dict stats(const Engine& engine) {
  EngineStats stats;
  {
    const py::gil_scoped_release released;
    stats = engine.stats();
  }
  return dict_of(stats);
}

py::dict set_memory(Engine& engine, const py::object& memory) {
  EngineOptions options;
  read_memory(memory, options);
  MemoryPlan plan;
  {
    const py::gil_scoped_release released;
    plan = engine.set_memory(options.memory, options.memory_bytes);
  }
  return dict_of(plan);
}

void set_routing(Engine& engine, const Tokens& experts) {
  if (experts.ndim() != 3) {
    throw Error(ErrorCode::kArgument, "routing must be [steps, layers, ranks]");
  }
  const auto size = [&](py::ssize_t axis) { return static_cast<size_t>(experts.shape(axis)); };
  RouteScript script({experts.data(), experts.data() + experts.size()},
                     {size(0), size(1), size(2)});
  const py::gil_scoped_release released;
  engine.set_routing(std::move(script));
}

SamplingOptions sampling_from(const py::dict& values) {
  SamplingOptions options;
  for (const auto& [key_object, value] : values) {
    const auto key = key_object.cast<std::string>();
    if (key == "logit_bias") {
      for (const auto& [token, bias] : value.cast<std::map<int32_t, float>>()) {
        options.logit_bias.emplace_back(token, bias);
      }
    } else if (key == "repetition_penalty") {
      options.repetition_penalty = value.cast<float>();
    } else if (key == "frequency_penalty") {
      options.frequency_penalty = value.cast<float>();
    } else if (key == "presence_penalty") {
      options.presence_penalty = value.cast<float>();
    } else if (key == "penalty_window") {
      options.penalty_window = value.cast<uint32_t>();
    } else if (key == "temperature") {
      options.temperature = value.cast<float>();
    } else if (key == "top_k") {
      options.top_k = value.cast<uint32_t>();
    } else if (key == "top_p") {
      options.top_p = value.cast<float>();
    } else if (key == "min_p") {
      options.min_p = value.cast<float>();
    } else if (key == "seed") {
      options.seed = value.cast<uint64_t>();
    } else {
      throw Error(ErrorCode::kArgument, "unknown sampling option '" + key + "'");
    }
  }
  return options;
}

py::dict dict_of(const BenchmarkResult& result) {
  // What does not limit is null in JSON, which has no infinity.
  const auto limit = [](double value) -> py::object {
    return std::isfinite(value) ? py::object(py::float_(value)) : py::none();
  };
  py::dict rate;
  rate["median"] = result.tokens_per_second.median;
  rate["min"] = result.tokens_per_second.min;
  rate["max"] = result.tokens_per_second.max;
  py::dict limits;
  limits["storage"] = limit(result.limit.storage);
  limits["memory"] = limit(result.limit.memory);
  limits["compute"] = limit(result.limit.compute);
  py::dict dict;
  dict["test"] = result.test;
  dict["tokens_per_second"] = rate;
  dict["hit_rate"] = result.hit_rate;
  dict["bytes_read_per_token"] = result.bytes_read_per_token;
  dict["stall_seconds_per_token"] = result.stall_seconds_per_token;
  dict["busy_seconds_per_token"] = result.busy_seconds_per_token;
  py::dict ahead;
  ahead["recall"] = result.read_ahead.recall;
  ahead["precision"] = result.read_ahead.precision;
  ahead["useful_bytes_per_token"] = result.read_ahead.useful_bytes_per_token;
  ahead["wasted_bytes_per_token"] = result.read_ahead.wasted_bytes_per_token;
  dict["read_ahead"] = ahead;
  dict["lossy_routing"] = object_of(result.cache_routing);
  dict["lossy_low_copy"] = object_of(result.low_copies);
  dict["limit"] = limits;
  dict["of_limit"] = result.of_limit;
  return dict;
}

BenchmarkOptions benchmark_options_from(const py::dict& values) {
  BenchmarkOptions options;
  for (const auto& [name, value] : values) {
    const std::string key = py::cast<std::string>(name);
    if (key == "test") {
      options.test =
          value.cast<std::string>() == "prefill" ? BenchmarkTest::kPrefill : BenchmarkTest::kDecode;
    } else if (key == "num_tokens") {
      options.num_tokens = count_from(value, key);
    } else if (key == "depth") {
      options.depth = count_from(value, key);
    } else if (key == "repetitions") {
      options.repetitions = count_from(value, key);
    } else {
      throw Error(ErrorCode::kArgument, "unknown benchmark option '" + key + "'");
    }
  }
  return options;
}

py::dict benchmark(Engine& engine, const ModelFile& file, const py::dict& values,
                   double memory_bandwidth, double storage_bandwidth) {
  const BenchmarkOptions options = benchmark_options_from(values);
  BenchmarkResult result;
  run_interruptibly([&](const ShouldStop& stop) {
    result = run_benchmark(engine, file, options, {memory_bandwidth, storage_bandwidth}, stop);
  });
  return dict_of(result);
}

void bind_sampler(py::module_& module) {
  py::class_<Sampler>(module, "Sampler")
      .def(py::init([](const py::dict& options, size_t vocab_size) {
             return std::make_unique<Sampler>(sampling_from(options), vocab_size);
           }),
           py::arg("options"), py::arg("vocabulary_size"))
      .def("sample",
           [](Sampler& sampler, const Floats& row) {
             return sampler.sample({row.data(), static_cast<size_t>(row.size())});
           })
      .def("accept", &Sampler::accept);
}

}  // namespace

void bind_engine(py::module_& module) {
  PYBIND11_NUMPY_DTYPE(RoutingEvent, bytes_read, position, expert, weight, layer, rank, resident);
  PYBIND11_NUMPY_DTYPE(LayerEvent, start_ns, alone_ns, overlap_ns, stall_ns, bytes_read, position,
                       rows, layer, demands, hits);
  py::class_<Engine>(module, "Engine")
      .def(py::init([](const ModelFile& file, const py::dict& options) {
             const EngineOptions engine_options = options_from(options);
             std::unique_ptr<Engine> engine;
             run_interruptibly([&](const ShouldStop& stop) {
               engine = Engine::load(file, engine_options, stop);
             });
             return engine;
           }),
           py::arg("file"), py::arg("options"), py::keep_alive<1, 2>())
      .def("plan", [](const Engine& engine) { return dict_of(engine.memory_plan()); })
      .def("set_memory", set_memory, py::arg("memory"))
      .def("stats", stats)
      .def("take_trace", take_trace)
      .def("router_recall", router_recall)
      .def("set_routing", set_routing, py::arg("experts"))
      .def("observe_experts", observe_experts, py::arg("statistics").none(true),
           py::keep_alive<1, 2>())
      .def_property_readonly("level", &Engine::level)
      .def_property_readonly("io",
                             [](const Engine& engine) { return std::string(engine.io_backend()); })
      .def_property_readonly("vocabulary_size",
                             [](const Engine& engine) { return engine.spec().vocab_size; });
  py::class_<Session>(module, "Session")
      .def(py::init<Engine&>(), py::arg("engine"), py::keep_alive<1, 2>())
      .def("evaluate", evaluate, py::arg("tokens"), py::arg("generated") = py::none())
      .def("encode", encode, py::arg("tokens"))
      .def("evaluate_windows", evaluate_windows, py::arg("tokens"), py::arg("window"))
      .def("logits", logits, py::arg("engine"), py::arg("first"), py::arg("count"))
      .def("rewind", &Session::rewind, py::arg("position"))
      .def_property_readonly("num_rows", &Session::num_rows)
      .def_property_readonly("position", &Session::position);
  bind_sampler(module);
  module.def("benchmark", benchmark, py::arg("engine"), py::arg("file"), py::arg("options"),
             py::arg("memory_bandwidth"), py::arg("storage_bandwidth"));
}

}  // namespace edgemoe
