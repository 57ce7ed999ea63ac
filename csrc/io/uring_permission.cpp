#include "io/uring_permission.h"

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace edgemoe {
namespace {

// Asked of /proc: prctl is a call that a filter may forbid. Without an answer it is assumed.
bool under_seccomp_filter() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("Seccomp:")) return line.back() != '0';
  }
  return true;
}

// Runs in the child and ends it: system calls only, as other threads' locks may be held for ever
// here.
[[noreturn]] void attempt() noexcept {
  ::signal(SIGSYS, SIG_DFL);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  io_uring_params parameters;
  std::memset(&parameters, 0, sizeof parameters);
  const long ring = ::syscall(__NR_io_uring_setup, 1, &parameters);
  if (ring >= 0) ::syscall(__NR_io_uring_enter, ring, 0, 0, 0, nullptr, 0);
  const int status = ring >= 0 ? 0 : errno;
  for (;;) ::syscall(SYS_exit_group, status);
}

}  // namespace

std::string uring_refusal() noexcept {
  if (!under_seccomp_filter()) return "";
  // By system call, past the fork handlers of other libraries.
  const long child = ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) attempt();
  if (child < 0) return "a seccomp filter is active, and no child could be started to try it";
  int status = 0;
  pid_t waited = -1;
  do {
    waited = ::waitpid(static_cast<pid_t>(child), &status, 0);
  } while (waited < 0 && errno == EINTR);
  if (waited < 0 || !WIFEXITED(status)) return "a seccomp filter ends processes that ask for it";
  return WEXITSTATUS(status) == 0 ? "" : errno_text(WEXITSTATUS(status));
}

}  // namespace edgemoe

#else

namespace edgemoe {

std::string uring_refusal() noexcept {
  return "this build was made without its kernel header";
}

}  // namespace edgemoe

#endif
