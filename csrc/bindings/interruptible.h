// Long work that Ctrl-C can stop.
#pragma once

#include <pybind11/pybind11.h>

#include "base/error.h"

namespace edgemoe {

// Runs `action(should_stop)` without the GIL; a signal handler that raises (Ctrl-C) stops it.
template <class Action>
void run_interruptibly(const Action& action) {
  bool interrupted = false;
  const auto should_stop = [&interrupted] {
    const pybind11::gil_scoped_acquire acquired;
    interrupted = PyErr_CheckSignals() != 0;
    return interrupted;
  };
  try {
    const pybind11::gil_scoped_release released;
    action(should_stop);
  } catch (const Error&) {
    if (interrupted) throw pybind11::error_already_set();
    throw;
  }
}

}  // namespace edgemoe
