#include "bindings/conversions.h"

#include <pybind11/stl.h>

#include <limits>

#include "base/error.h"
#include "model/kv_cache.h"

namespace py = pybind11;

namespace edgemoe {

uint32_t count_from(const py::handle& value, const std::string& key) {
  const auto number = value.cast<int64_t>();
  if (number < 0 || number > std::numeric_limits<int32_t>::max()) {
    throw Error(ErrorCode::kArgument, key + " must be between 0 and 2147483647");
  }
  return static_cast<uint32_t>(number);
}

void read_memory(const py::handle& value, EngineOptions& options) {
  if (!py::isinstance<py::str>(value)) {
    options.memory = EngineOptions::Memory::kBytes;
    options.memory_bytes = value.cast<uint64_t>();
    return;
  }
  const auto word = value.cast<std::string>();
  if (word == "auto") {
    options.memory = EngineOptions::Memory::kAuto;
  } else if (word == "min") {
    options.memory = EngineOptions::Memory::kLeast;
  } else {
    throw Error(ErrorCode::kArgument, "memory must be 'auto', 'min' or a number of bytes");
  }
}

namespace {

EngineOptions::Governing governing_from(const std::string& name) {
  if (name == "auto") return EngineOptions::Governing::kAuto;
  if (name == "on") return EngineOptions::Governing::kOn;
  if (name == "off") return EngineOptions::Governing::kOff;
  throw Error(ErrorCode::kArgument, "unknown governor '" + name + "'; known: auto, on, off");
}

}  // namespace

EngineOptions options_from(const py::dict& values) {
  EngineOptions options;
  for (const auto& [key_object, value] : values) {
    const auto key = key_object.cast<std::string>();
    if (key == "memory") {
      read_memory(value, options);
    } else if (key == "threads") {
      options.num_threads = count_from(value, key);
    } else if (key == "context") {
      options.context = count_from(value, key);
    } else if (key == "batch") {
      options.batch = count_from(value, key);
    } else if (key == "kv_type") {
      options.kv_type = kv_type_from_name(value.cast<std::string>());
    } else if (key == "mode") {
      options.mode = mode_from_name(value.cast<std::string>());
    } else if (key == "eviction") {
      options.eviction = eviction_policy_from_name(value.cast<std::string>());
    } else if (key == "cache_folder") {
      options.cache_folder = value.cast<std::string>();
    } else if (key == "preload") {
      options.preload = preload_policy_from_name(value.cast<std::string>());
    } else if (key == "predictor") {
      options.predictor = predictor_from_name(value.cast<std::string>());
    } else if (key == "look_ahead") {
      options.look_ahead = count_from(value, key);
    } else if (key == "io") {
      options.reader.backend = value.cast<std::string>();
      access_for_backend(options.reader.backend);
    } else if (key == "governor") {
      options.governing = governing_from(value.cast<std::string>());
    } else if (key == "system_root") {
      options.system_root = value.cast<std::string>();
    } else if (key == "reserved_bytes") {
      options.reserved_bytes = value.cast<uint64_t>();
    } else if (key == "verify") {
      options.verify = value.cast<bool>();
    } else if (key == "lossy_routing") {
      if (!value.is_none()) options.lossy_routing = value.cast<double>();
    } else if (key == "lossy_low_copy") {
      if (!value.is_none()) options.lossy_low_copy = value.cast<double>();
    } else if (key == "trace") {
      options.trace = value.cast<bool>();
    } else {
      throw Error(ErrorCode::kArgument, "unknown option '" + key + "'");
    }
  }
  return options;
}

py::dict dict_of(const MemoryPlan& plan) {
  py::dict dict;
  dict["budget_bytes"] = plan.budget_bytes;
  dict["process_bytes"] = plan.process_bytes;
  dict["dense_bytes"] = plan.dense_bytes;
  dict["kv_cache_bytes"] = plan.kv_cache_bytes;
  dict["scratch_bytes"] = plan.scratch_bytes;
  dict["learned_bytes"] = plan.learned_bytes;
  dict["reserved_bytes"] = plan.reserved_bytes;
  dict["expert_pool_bytes"] = plan.expert_pool_bytes;
  dict["planned_bytes"] = plan.planned_bytes();
  dict["least_bytes"] = plan.least_bytes;
  dict["all_experts_bytes"] = plan.all_experts_bytes;
  dict["token_expert_bytes"] = plan.token_expert_bytes;
  dict["context"] = plan.context;
  dict["batch"] = plan.batch;
  dict["threads"] = plan.num_threads;
  return dict;
}

py::dict dict_of(const ExpertStats& stats) {
  py::dict dict;
  dict["expert_demands"] = stats.demands;
  dict["expert_hits"] = stats.hits;
  dict["bytes_read"] = stats.bytes_read;
  dict["stall_seconds"] = static_cast<double>(stats.stall_ns) * 1e-9;
  dict["busy_seconds"] = static_cast<double>(stats.busy_ns) * 1e-9;
  return dict;
}

py::object object_of(const CacheRoutingStats& stats) {
  if (stats.target == 1) return py::none();
  py::dict dict;
  dict["target"] = stats.target;
  dict["agreement"] = stats.agreement();
  dict["choices"] = stats.choices;
  dict["substitutions"] = stats.substitutions;
  dict["bytes_saved"] = stats.bytes_saved;
  return dict;
}

py::object object_of(const LowCopyStats& stats) {
  if (stats.threshold == 1) return py::none();
  py::dict dict;
  dict["threshold"] = stats.threshold;
  dict["share"] = stats.low_share();
  dict["choices"] = stats.choices;
  dict["low_choices"] = stats.low_choices;
  dict["bytes_saved"] = stats.bytes_saved;
  return dict;
}

py::dict dict_of(const EngineStats& stats) {
  py::dict dict;
  dict["steps"] = stats.steps;
  dict["tokens"] = stats.tokens;
  dict["step_seconds"] = static_cast<double>(stats.step_ns) * 1e-9;
  dict["expert_demands"] = stats.experts.demands;
  dict["expert_hits"] = stats.experts.hits;
  dict["evictions"] = stats.experts.evictions;
  dict["bytes_read"] = stats.experts.bytes_read;
  dict["stall_seconds"] = static_cast<double>(stats.experts.stall_ns) * 1e-9;
  dict["busy_seconds"] = static_cast<double>(stats.experts.busy_ns) * 1e-9;
  dict["read_ahead_bytes"] = stats.experts.ahead_bytes;
  dict["useful_bytes"] = stats.experts.useful_bytes;
  dict["wasted_bytes"] = stats.experts.wasted_bytes;
  dict["guesses"] = stats.read_ahead.guesses;
  dict["true_guesses"] = stats.read_ahead.true_guesses;
  dict["prefill"] = dict_of(stats.prefill);
  dict["decode"] = dict_of(stats.decode);
  dict["loading"] = dict_of(stats.loading);
  dict["reads"] = stats.reads.reads;
  dict["read_retries"] = stats.reads.retries;
  dict["read_errors"] = stats.reads.errors;
  dict["expert_pool_bytes"] = stats.expert_pool_bytes;
  dict["pool_shrinks"] = stats.pool_shrinks;
  dict["pool_grows"] = stats.pool_grows;
  dict["resident_bytes"] = stats.resident_bytes;
  dict["peak_resident_bytes"] = stats.peak_resident_bytes;
  dict["lossy_routing"] = object_of(stats.cache_routing);
  dict["lossy_low_copy"] = object_of(stats.low_copies);
  py::list layers;
  for (const LayerStats& layer : stats.layers) {
    layers.append(py::make_tuple(layer.demands, layer.hits));
  }
  dict["layers"] = layers;
  return dict;
}

}  // namespace edgemoe
