// Options and results between Python dictionaries and the structs of the engine.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "engine/engine.h"

namespace edgemoe {

// Errors: kArgument naming `key` when the value is not a 32-bit count.
uint32_t count_from(const pybind11::handle& value, const std::string& key);

// Keys: memory ("auto", "min" or bytes), threads, context, batch, kv_type, eviction, io, trace.
// Errors: kArgument naming the key that is wrong.
EngineOptions options_from(const pybind11::dict& values);

pybind11::dict dict_of(const MemoryPlan& plan);
pybind11::dict dict_of(const EngineStats& stats);

}  // namespace edgemoe
