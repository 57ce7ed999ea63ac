// Whether this process may use io_uring, found out without risking the process.
#pragma once

#include <string>

namespace edgemoe {

// Why not; empty when it may. A seccomp filter can end a process for the attempt (Android does), so
// under one the first attempt is made by a child.
std::string uring_refusal() noexcept;

}  // namespace edgemoe
