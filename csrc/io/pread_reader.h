// A reader of plain system calls: threads that pread. Works everywhere, for direct and buffered
// files alike.
#pragma once

#include <memory>

#include "io/async_reader.h"

namespace edgemoe {

// `name` is what name() says: "pread" or "buffered". Requires: depth and num_threads >= 1.
// It works with fewer threads where the system refuses some. Errors: kArgument when it refuses all.
std::unique_ptr<AsyncReader> make_pread_reader(std::string_view name, size_t depth,
                                               size_t num_threads);

}  // namespace edgemoe
