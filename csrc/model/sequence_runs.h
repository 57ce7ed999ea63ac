// Rows of a step that belong together.
#pragma once

#include <cstddef>
#include <span>

#include "model/step.h"

namespace edgemoe {

// Calls function(first, count) for each run of rows with the same cache, in order.
template <class Function>
void for_each_run(std::span<const StepRow> rows, Function function) {
  for (size_t first = 0; first < rows.size();) {
    size_t last = first + 1;
    while (last < rows.size() && rows[last].cache == rows[first].cache) ++last;
    function(first, last - first);
    first = last;
  }
}

}  // namespace edgemoe
