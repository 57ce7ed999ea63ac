#include "bindings/bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of edgemoe. Use the package `edgemoe`, not this module.";
  module.attr("__version__") = EDGEMOE_VERSION;
  edgemoe::bind_errors(module);
  edgemoe::bind_gguf(module);
  edgemoe::bind_model_file(module);
  edgemoe::bind_profile(module);
  edgemoe::bind_engine(module);
  edgemoe::bind_machine(module);
  edgemoe::bind_replay(module);
  edgemoe::bind_pack(module);
  edgemoe::bind_quant(module);
  pybind11::module_ testing = module.def_submodule("testing");
  edgemoe::bind_testing(testing);
}
