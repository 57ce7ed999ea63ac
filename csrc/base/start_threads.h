// Starting threads where the system may refuse some.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace edgemoe {

// Appends threads that run body(0), body(1), ... until there are `count` or the system refuses one.
// Returns why it did (errno); 0 when all were started. Errors: std::bad_alloc, before any.
int start_threads(std::vector<std::thread>& threads, size_t count,
                  const std::function<void(size_t)>& body);

// What to tell about it: which limits there are, and what to do.
std::string describe_refused_thread(int error_number);

}  // namespace edgemoe
