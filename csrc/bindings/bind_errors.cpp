#include "base/error.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace edgemoe {

// The classes live in Python (edgemoe/errors.py), one per code.
void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const Error& error) {
      const py::object find = py::module_::import("edgemoe.errors").attr("error_class");
      const py::object type = find(py::str(std::string(error_code_name(error.code()))));
      const std::string_view message = error.what();
      const py::object text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
          message.data(), static_cast<Py_ssize_t>(message.size()), "backslashreplace"));
      PyErr_SetObject(type.ptr(), text.ptr());
    }
  });
}

}  // namespace edgemoe
