// The keys below "<architecture>." of a file's metadata. Remembers what it was asked for: a key
// that nobody asked for may change what the model computes, so it is refused.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gguf/metadata.h"

namespace edgemoe {

class SpecKeys {
 public:
  static constexpr uint64_t kMaxCount = 1u << 20;      // of layers, heads, experts, widths
  static constexpr uint64_t kMaxPositions = 1u << 30;  // of contexts and vocabularies

  SpecKeys(const Metadata& metadata, std::string_view architecture)
      : metadata_(metadata), prefix_(std::string(architecture) + ".") {}

  // Errors of all getters: those of Metadata's.
  bool contains(std::string_view name) const { return metadata_.contains(key(name)); }
  bool is_array(std::string_view name) const;
  uint32_t count(std::string_view name, uint64_t max = kMaxCount) const {
    return static_cast<uint32_t>(metadata_.get_uint(key(name), max));
  }
  uint32_t count_or(std::string_view name, uint64_t fallback, uint64_t max = kMaxCount) const {
    return static_cast<uint32_t>(metadata_.get_uint_or(key(name), fallback, max));
  }
  double value(std::string_view name) const { return metadata_.get_float(key(name)); }
  double value_or(std::string_view name, double fallback) const {
    return metadata_.get_float_or(key(name), fallback);
  }
  bool flag_or(std::string_view name, bool fallback) const {
    return metadata_.get_bool_or(key(name), fallback);
  }
  std::string text_or(std::string_view name, std::string_view fallback) const {
    return metadata_.get_string_or(key(name), fallback);
  }
  std::vector<uint64_t> counts(std::string_view name, uint32_t size) const {
    return metadata_.get_uints(key(name), size, kMaxCount);
  }
  std::vector<bool> flags(std::string_view name, uint32_t size) const {
    return metadata_.get_bools(key(name), size);
  }

  [[noreturn]] void refuse(ErrorCode code, std::string_view name, const std::string& what) const;
  // Errors: kUnsupported naming a key that was not asked for and matters.
  void refuse_unknown() const;

 private:
  std::string key(std::string_view name) const;

  const Metadata& metadata_;
  std::string prefix_;
  mutable std::set<std::string, std::less<>> asked_;
};

}  // namespace edgemoe
