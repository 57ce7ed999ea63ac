// A reader over io_uring, by system call: the kernel's header is all that it needs.
#pragma once

#include <memory>
#include <string>

#include "io/async_reader.h"

namespace edgemoe {

// Errors: kUnsupported with the cause when the kernel, a seccomp filter or a limit refuses the
// ring.
std::unique_ptr<AsyncReader> make_uring_reader(size_t depth);

}  // namespace edgemoe
