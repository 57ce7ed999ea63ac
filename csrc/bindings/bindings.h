// The parts of the Python module `edgemoe._core`: each converts and calls, nothing more.
#pragma once

#include <pybind11/pybind11.h>

namespace edgemoe {

void bind_errors(pybind11::module_& module);
void bind_gguf(pybind11::module_& module);
void bind_model_file(pybind11::module_& module);
void bind_engine(pybind11::module_& module);
void bind_machine(pybind11::module_& module);
void bind_replay(pybind11::module_& module);
void bind_pack(pybind11::module_& module);
void bind_profile(pybind11::module_& module);
void bind_quant(pybind11::module_& module);
// Functions that only tests use, in the submodule `testing`.
void bind_testing(pybind11::module_& testing);

}  // namespace edgemoe
