// Options and results between Python dictionaries and the structs of the engine.
#pragma once

#include <pybind11/pybind11.h>

#include "engine/engine.h"

namespace edgemoe {

// Keys: memory ("auto", "min" or bytes), threads, context, batch, kv_type, eviction, io.
// Errors: kArgument naming the key that is wrong.
EngineOptions options_from(const pybind11::dict& values);

pybind11::dict dict_of(const MemoryPlan& plan);
pybind11::dict dict_of(const EngineStats& stats);

}  // namespace edgemoe
