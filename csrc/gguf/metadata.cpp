#include "gguf/metadata.h"

#include <cmath>
#include <type_traits>

#include "base/error.h"

namespace edgemoe {
namespace {

[[noreturn]] void fail(const std::string& source, std::string_view key, const std::string& what) {
  throw Error(ErrorCode::kFormat, source + ": metadata '" + std::string(key) + "' " + what);
}

// Any integer type, where the value fits.
std::optional<uint64_t> as_uint(const MetadataValue& value) {
  if (const auto* number = std::get_if<uint64_t>(&value)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value)) {
    if (*number >= 0) return static_cast<uint64_t>(*number);
  }
  return std::nullopt;
}

// Swapped with an empty one: assigning an empty array may keep the memory.
void drop_array(MetadataValue& value) {
  std::visit(
      [](auto& held) {
        using Held = std::remove_reference_t<decltype(held)>;
        constexpr bool kIsScalar = std::is_arithmetic_v<Held> || std::is_same_v<Held, std::string>;
        if constexpr (!kIsScalar) {
          Held empty;
          std::swap(held, empty);
        }
      },
      value);
}

}  // namespace

const MetadataValue* Metadata::find(std::string_view key) const noexcept {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &entries_[found->second].second;
}

void Metadata::set(std::string key, MetadataValue value) {
  if (!index_.emplace(key, entries_.size()).second) fail(source_, key, "appears twice");
  entries_.emplace_back(std::move(key), std::move(value));
}

void Metadata::drop_arrays(std::string_view prefix) noexcept {
  for (auto& entry : entries_) {
    if (entry.first.starts_with(prefix)) drop_array(entry.second);
  }
}

uint64_t Metadata::get_uint(std::string_view key, uint64_t max) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(source_, key, "is missing");
  const std::optional<uint64_t> number = as_uint(*value);
  if (!number) fail(source_, key, "is not a whole number that is 0 or more");
  if (*number > max) {
    fail(source_, key, "is " + std::to_string(*number) + "; at most " + std::to_string(max));
  }
  return *number;
}

uint64_t Metadata::get_uint_or(std::string_view key, uint64_t fallback, uint64_t max) const {
  return contains(key) ? get_uint(key, max) : fallback;
}

double Metadata::get_float(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(source_, key, "is missing");
  const double* number = std::get_if<double>(value);
  if (number == nullptr) fail(source_, key, "is not a float");
  if (!std::isfinite(*number)) fail(source_, key, "is not finite");
  return *number;
}

double Metadata::get_float_or(std::string_view key, double fallback) const {
  return contains(key) ? get_float(key) : fallback;
}

bool Metadata::get_bool_or(std::string_view key, bool fallback) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) return fallback;
  const bool* flag = std::get_if<bool>(value);
  if (flag == nullptr) fail(source_, key, "is not a bool");
  return *flag;
}

const std::string& Metadata::get_string(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(source_, key, "is missing");
  const std::string* text = std::get_if<std::string>(value);
  if (text == nullptr) fail(source_, key, "is not a string");
  return *text;
}

std::string Metadata::get_string_or(std::string_view key, std::string_view fallback) const {
  return contains(key) ? get_string(key) : std::string(fallback);
}

std::vector<uint64_t> Metadata::get_uints(std::string_view key, size_t count, uint64_t max) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(source_, key, "is missing");
  std::vector<uint64_t> numbers;
  if (const auto* array = std::get_if<std::vector<uint64_t>>(value)) {
    numbers = *array;
  } else if (const auto* signed_array = std::get_if<std::vector<int64_t>>(value)) {
    for (const int64_t number : *signed_array) {
      if (number < 0) fail(source_, key, "has a negative element");
      numbers.push_back(static_cast<uint64_t>(number));
    }
  } else {
    return std::vector<uint64_t>(count, get_uint(key, max));
  }
  if (numbers.size() != count) {
    fail(source_, key,
         "has " + std::to_string(numbers.size()) + " elements; expected " + std::to_string(count));
  }
  for (const uint64_t number : numbers) {
    if (number > max) {
      fail(source_, key,
           "has the element " + std::to_string(number) + "; at most " + std::to_string(max));
    }
  }
  return numbers;
}

std::vector<bool> Metadata::get_bools(std::string_view key, size_t count) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(source_, key, "is missing");
  const auto* array = std::get_if<std::vector<bool>>(value);
  if (array == nullptr) return std::vector<bool>(count, get_bool_or(key, false));
  if (array->size() != count) {
    fail(source_, key,
         "has " + std::to_string(array->size()) + " elements; expected " + std::to_string(count));
  }
  return *array;
}

const StringArray& Metadata::get_strings(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(source_, key, "is missing");
  const auto* strings = std::get_if<StringArray>(value);
  if (strings == nullptr) fail(source_, key, "is not an array of strings");
  return *strings;
}

}  // namespace edgemoe
