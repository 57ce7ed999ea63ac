// A small test frame: TEST("name that states the behaviour") { CHECK(...); }.
// A failed CHECK is reported with its values and the test goes on; a failed REQUIRE ends the test.
#pragma once

#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"

namespace edgemoe::test {

struct Case {
  std::string name;
  std::function<void()> run;
};
std::vector<Case>& cases();
void report_failure(const char* file, int line, const std::string& what);

struct Registration {
  Registration(const char* name, std::function<void()> run) { cases().push_back({name, run}); }
};

struct Abandoned : std::exception {};

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream what;
  what << text << ": " << a << " != " << b;
  report_failure(file, line, what.str());
}

// The message of the Error that `action` raises; fails the test when it raises none or another
// code.
template <class Action>
std::string error_message(ErrorCode code, const Action& action, const char* file, int line) {
  try {
    action();
  } catch (const Error& error) {
    if (error.code() != code) {
      report_failure(file, line, "error of another code: " + std::string(error.what()));
    }
    return error.what();
  }
  report_failure(file, line, "no error was raised");
  return "";
}

}  // namespace edgemoe::test

#define EM_TEST_JOIN2(a, b) a##b
#define EM_TEST_JOIN(a, b) EM_TEST_JOIN2(a, b)
#define TEST(name)                                                                \
  static void EM_TEST_JOIN(test_body_, __LINE__)();                               \
  static const ::edgemoe::test::Registration EM_TEST_JOIN(test_entry_, __LINE__)( \
      name, EM_TEST_JOIN(test_body_, __LINE__));                                  \
  static void EM_TEST_JOIN(test_body_, __LINE__)()
#define CHECK(condition) \
  ((condition) ? void() : ::edgemoe::test::report_failure(__FILE__, __LINE__, #condition))
#define REQUIRE(condition)                                             \
  do {                                                                 \
    if (!(condition)) {                                                \
      ::edgemoe::test::report_failure(__FILE__, __LINE__, #condition); \
      throw ::edgemoe::test::Abandoned();                              \
    }                                                                  \
  } while (false)
#define CHECK_EQUAL(a, b) ::edgemoe::test::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
#define ERROR_MESSAGE(code, ...) \
  ::edgemoe::test::error_message(code, [&] { __VA_ARGS__; }, __FILE__, __LINE__)
