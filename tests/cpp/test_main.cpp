// Runs all tests, or those whose name contains the first argument. Exit status 1 on any failure.
#include <cstdio>
#include <cstring>

#include "test.h"

namespace edgemoe::test {
namespace {
int failures_of_case = 0;
}

std::vector<Case>& cases() {
  static std::vector<Case> list;
  return list;
}

void report_failure(const char* file, int line, const std::string& what) {
  ++failures_of_case;
  std::fprintf(stderr, "  %s:%d: %s\n", file, line, what.c_str());
}

static bool passes(const Case& test) {
  failures_of_case = 0;
  try {
    test.run();
  } catch (const Abandoned&) {
  } catch (const std::exception& error) {
    report_failure("(exception)", 0, error.what());
  }
  if (failures_of_case != 0) std::fprintf(stderr, "FAILED: %s\n", test.name.c_str());
  return failures_of_case == 0;
}

}  // namespace edgemoe::test

int main(int argc, char** argv) {
  int run = 0;
  int failed = 0;
  for (const edgemoe::test::Case& test : edgemoe::test::cases()) {
    if (argc > 1 && std::strstr(test.name.c_str(), argv[1]) == nullptr) continue;
    ++run;
    failed += edgemoe::test::passes(test) ? 0 : 1;
  }
  std::printf("%d tests, %d failed\n", run, failed);
  return failed == 0 && run > 0 ? 0 : 1;
}
