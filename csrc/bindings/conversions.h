// Options and results between Python dictionaries and the structs of the engine.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "engine/engine.h"

namespace edgemoe {

// Errors: kArgument naming `key` when the value is not a 32-bit count.
uint32_t count_from(const pybind11::handle& value, const std::string& key);

// Keys: memory (see read_memory), threads, context, batch, kv_type, mode, eviction, preload,
// predictor, look_ahead, cache_folder, io, governor ("auto", "on" or "off"), lossy_routing (None or
// the agreement), lossy_low_copy (None or the threshold), verify, trace, reserved_bytes,
// system_root (tests). Errors: kArgument naming the key that is wrong.
EngineOptions options_from(const pybind11::dict& values);

// Sets memory and memory_bytes from "auto", "min" or bytes. Errors: kArgument.
void read_memory(const pybind11::handle& value, EngineOptions& options);

pybind11::dict dict_of(const MemoryPlan& plan);
pybind11::dict dict_of(const EngineStats& stats);
// None where routers decide.
pybind11::object object_of(const CacheRoutingStats& stats);
// None where experts are used as they are.
pybind11::object object_of(const LowCopyStats& stats);

}  // namespace edgemoe
