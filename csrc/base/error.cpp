#include "base/error.h"

#include <system_error>

namespace edgemoe {

std::string_view error_code_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kFormat:
      return "format";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kBudget:
      return "budget";
    case ErrorCode::kArgument:
      return "argument";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

void check_failed(const char* condition, const char* file, int line) {
  throw Error(ErrorCode::kInternal, std::string("internal check failed: ") + condition + " (" +
                                        file + ":" + std::to_string(line) +
                                        "); please report this as a bug");
}

std::string errno_text(int error_number) {
  return std::generic_category().message(error_number);
}

}  // namespace edgemoe
