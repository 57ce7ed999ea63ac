// Typed key-value metadata of a GGUF file. Getters check type and range and name the key in errors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace edgemoe {

// Strings of an array, stored back to back: one allocation for a vocabulary of 150 000.
struct StringArray {
  std::string bytes;
  std::vector<uint64_t> ends;  // string i is bytes[ends[i-1], ends[i])
  size_t size() const noexcept { return ends.size(); }
  std::string_view operator[](size_t i) const noexcept {
    const uint64_t begin = i == 0 ? 0 : ends[i - 1];
    return std::string_view(bytes).substr(begin, ends[i] - begin);
  }
};

// Integers are widened on reading; arrays keep one element kind.
using MetadataValue =
    std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>,
                 std::vector<int64_t>, std::vector<double>, std::vector<bool>, StringArray>;

class Metadata {
 public:
  bool contains(std::string_view key) const noexcept { return find(key) != nullptr; }
  const MetadataValue* find(std::string_view key) const noexcept;
  // In file order.
  std::span<const std::pair<std::string, MetadataValue>> entries() const noexcept {
    return entries_;
  }

  // Errors of all getters: kFormat naming file and key when the key is missing (the `_or` forms
  // give the fallback instead), of another type, or out of range. Any integer type is accepted
  // where the value fits; float32 and float64 are accepted for floats.
  uint64_t get_uint(std::string_view key, uint64_t max) const;
  uint64_t get_uint_or(std::string_view key, uint64_t fallback, uint64_t max) const;
  double get_float(std::string_view key) const;  // finite
  double get_float_or(std::string_view key, double fallback) const;
  bool get_bool_or(std::string_view key, bool fallback) const;
  const std::string& get_string(std::string_view key) const;
  std::string get_string_or(std::string_view key, std::string_view fallback) const;
  // A scalar counts as `count` equal values; an array must have exactly `count`.
  std::vector<uint64_t> get_uints(std::string_view key, size_t count, uint64_t max) const;
  std::vector<bool> get_bools(std::string_view key, size_t count) const;
  const StringArray& get_strings(std::string_view key) const;

  // Filled by the reader. Errors: kFormat for a key that is already there.
  void set(std::string key, MetadataValue value);
  // Empties the arrays whose keys start with `prefix`; the keys stay.
  void drop_arrays(std::string_view prefix) noexcept;
  void set_source(std::string path) { source_ = std::move(path); }
  const std::string& source() const noexcept { return source_; }

 private:
  std::string source_;  // file name for messages
  std::vector<std::pair<std::string, MetadataValue>> entries_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace edgemoe
