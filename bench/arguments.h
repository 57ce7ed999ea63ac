// The command line of edgemoe-bench: "COMMAND [FILE] --name value ...".
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace edgemoe::bench {

class Arguments {
 public:
  // Errors: kArgument for an option without a value or a second positional argument.
  Arguments(const std::vector<std::string>& words);

  // The file that the command works on. Errors: kArgument when there is none.
  const std::string& file() const;
  bool has(const std::string& name) const { return values_.contains(name); }
  std::string text(const std::string& name, const std::string& fallback);
  // Errors: kArgument naming the option when the value is not a number up to `max`.
  uint64_t number(const std::string& name, uint64_t fallback, uint64_t max);
  // The same, and 0 is refused.
  uint64_t count(const std::string& name, uint64_t fallback, uint64_t max);
  // "0.9". Errors: kArgument naming the option when the value is not a number.
  double real(const std::string& name, double fallback);
  // "512", "4GiB", "1.5GiB", "64K" (binary units), in bytes.
  uint64_t size(const std::string& name, uint64_t fallback);
  // Errors: kArgument naming an option that no call above asked for.
  void refuse_unknown() const;
  // Errors: kArgument naming the file, of a command that works on none.
  void refuse_file() const;

 private:
  std::string file_;
  std::map<std::string, std::string> values_;
  std::set<std::string> known_;
};

}  // namespace edgemoe::bench
