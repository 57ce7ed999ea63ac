#include "arguments.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/units.h"

namespace edgemoe::bench {
namespace {

[[noreturn]] void refuse(const std::string& name, const std::string& value,
                         const std::string& expected) {
  throw Error(ErrorCode::kArgument, "--" + name + " is '" + value + "'; expected " + expected);
}

double unit_of(std::string_view suffix) {
  if (suffix.empty() || suffix == "B") return 1;
  if (suffix == "K" || suffix == "KiB") return static_cast<double>(kKiB);
  if (suffix == "M" || suffix == "MiB") return static_cast<double>(kMiB);
  if (suffix == "G" || suffix == "GiB") return static_cast<double>(kGiB);
  return 0;
}

}  // namespace

Arguments::Arguments(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with("--")) {
      if (i + 1 == words.size()) {
        throw Error(ErrorCode::kArgument, words[i] + " needs a value");
      }
      values_[words[i].substr(2)] = words[i + 1];
      ++i;
    } else if (file_.empty()) {
      file_ = words[i];
    } else {
      throw Error(ErrorCode::kArgument, "one file is expected; '" + words[i] + "' is a second one");
    }
  }
}

const std::string& Arguments::file() const {
  if (file_.empty()) throw Error(ErrorCode::kArgument, "this command needs a file");
  return file_;
}

std::string Arguments::text(const std::string& name, const std::string& fallback) {
  known_.insert(name);
  const auto found = values_.find(name);
  return found == values_.end() ? fallback : found->second;
}

uint64_t Arguments::number(const std::string& name, uint64_t fallback, uint64_t max) {
  const std::string value = text(name, std::to_string(fallback));
  uint64_t result = 0;
  const char* end = value.data() + value.size();
  const auto [stop, failure] = std::from_chars(value.data(), end, result);
  if (failure != std::errc() || stop != end || result > max) {
    refuse(name, value, "a whole number up to " + std::to_string(max));
  }
  return result;
}

uint64_t Arguments::count(const std::string& name, uint64_t fallback, uint64_t max) {
  const uint64_t result = number(name, fallback, max);
  if (result == 0) refuse(name, "0", "a whole number from 1 to " + std::to_string(max));
  return result;
}

double Arguments::real(const std::string& name, double fallback) {
  const std::string value = text(name, "");
  if (value.empty()) return fallback;
  double result = 0;
  const char* end = value.data() + value.size();
  const auto [stop, failure] = std::from_chars(value.data(), end, result);
  if (failure != std::errc() || stop != end) refuse(name, value, "a number such as 0.9");
  return result;
}

uint64_t Arguments::size(const std::string& name, uint64_t fallback) {
  const std::string value = text(name, std::to_string(fallback));
  double count = 0;
  const char* end = value.data() + value.size();
  const auto [stop, failure] = std::from_chars(value.data(), end, count);
  const double unit = unit_of(std::string_view(stop, static_cast<size_t>(end - stop)));
  const double bytes = count * unit;
  if (failure != std::errc() || unit == 0 || !(bytes >= 1 && bytes < 0x1p60)) {
    refuse(name, value, "a size such as 512M, 4GiB or 1.5GiB");
  }
  return static_cast<uint64_t>(bytes);
}

void Arguments::refuse_unknown() const {
  for (const auto& [name, value] : values_) {
    if (!known_.contains(name)) {
      throw Error(ErrorCode::kArgument, "--" + name + " is not an option of this command");
    }
  }
}

void Arguments::refuse_file() const {
  if (file_.empty()) return;
  throw Error(ErrorCode::kArgument, "this command works on no file; leave '" + file_ + "' out");
}

}  // namespace edgemoe::bench
