#include "base/start_threads.h"

#include <cerrno>
#include <new>
#include <system_error>

#include "base/error.h"

namespace edgemoe {

int start_threads(std::vector<std::thread>& threads, size_t count,
                  const std::function<void(size_t)>& body) {
  threads.reserve(threads.size() + count);
  for (size_t i = 0; i < count; ++i) {
    try {
      threads.emplace_back(body, i);
    } catch (const std::system_error& error) {
      return error.code().value();
    } catch (const std::bad_alloc&) {
      return ENOMEM;
    }
  }
  return 0;
}

std::string describe_refused_thread(int error_number) {
  return "the system refuses to start a thread (" + errno_text(error_number) +
         "): a limit on processes (ulimit -u, pids.max of the control group) or on addresses "
         "(ulimit -v) is reached; ask for fewer threads (--threads 1 needs least), or raise it";
}

}  // namespace edgemoe
