#include "io/uring_permission.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>

#include "test.h"

namespace edgemoe {
namespace {

constexpr int kNoFilter = 77;  // seccomp cannot be used here (qemu-user)

// Lets everything through but io_uring_setup.
bool install_filter(uint32_t verdict) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, verdict),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(program), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

// The exit status of a process that asks under such a filter.
int status_under(uint32_t verdict) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!install_filter(verdict)) ::_exit(kNoFilter);
    ::_exit(uring_refusal().empty() ? 1 : 0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST("asking for io_uring does not end the process where a seccomp filter would") {
  for (const uint32_t verdict :
       {SECCOMP_RET_TRAP, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | 1u}) {
    const int status = status_under(verdict);
    CHECK(status == 0 || status == kNoFilter);
  }
}

}  // namespace
}  // namespace edgemoe
