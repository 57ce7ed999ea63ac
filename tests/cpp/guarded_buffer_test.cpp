// The guards that other tests rely on.
#include "guarded_buffer.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "test.h"

namespace edgemoe {
namespace {

using test::GuardedBuffer;
using test::Side;

// Whether a process that reads this byte ends before it can say that all is well.
bool ends_the_program(const std::byte* address) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);  // a sanitizer would report what is meant to happen
    [[maybe_unused]] const std::byte read = *static_cast<const volatile std::byte*>(address);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

}  // namespace

TEST("a byte before or behind guarded memory ends the program that reads it") {
  for (const size_t bytes : {size_t{1}, size_t{100}, size_t{4096}, size_t{5000}}) {
    const GuardedBuffer memory(bytes);
    CHECK(ends_the_program(memory.at(Side::kStart, bytes) - 1));
    CHECK(ends_the_program(memory.at(Side::kEnd, bytes) + bytes));
    for (const Side side : test::kSides) {
      CHECK(!ends_the_program(memory.at(side, bytes)));
      CHECK(!ends_the_program(memory.at(side, bytes) + bytes - 1));
    }
  }
}

}  // namespace edgemoe
