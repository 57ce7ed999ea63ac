// The one exception type of the library and the checks that raise it.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace edgemoe {

enum class ErrorCode {
  kIo,           // the system refused or failed a read or an open
  kFormat,       // a file is damaged or is not what it claims to be
  kUnsupported,  // a file is well formed but names something that this build does not know
  kBudget,       // the memory budget cannot hold what was asked for
  kArgument,     // the caller passed a value outside the documented range
  kCancelled,    // the caller asked to stop
  kInternal,     // a bug of ours
};

// "io", "format", ...: the name that Python classes and messages use.
std::string_view error_code_name(ErrorCode code) noexcept;

// Message: what happened, where (file, tensor, offset), what to do about it.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const noexcept { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

// `errno` value as text, e.g. "Input/output error"; thread-safe.
std::string errno_text(int error_number);

}  // namespace edgemoe

// Checks ourselves, always on; raises Error(kInternal). Input is checked with Error directly.
#define EM_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::edgemoe::check_failed(#condition, __FILE__, __LINE__))

#ifdef NDEBUG
#define EM_ASSERT(condition) static_cast<void>(0)
#else
#define EM_ASSERT(condition) EM_CHECK(condition)
#endif
