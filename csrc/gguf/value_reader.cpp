#include "gguf/value_reader.h"

#include <algorithm>

namespace edgemoe {
namespace {

constexpr uint64_t kMaxStringBytes = 16u << 20;

// The numbers that stand for types in a file.
enum class ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
constexpr uint32_t kNumValueTypes = 13;

ValueType read_type(ByteCursor& cursor, const Field& field) {
  const uint64_t at = cursor.offset();
  const auto type = cursor.read<uint32_t>(field);
  if (type >= kNumValueTypes) {
    cursor.fail(field, at, std::to_string(type) + " is not a value type of GGUF");
  }
  return static_cast<ValueType>(type);
}

bool read_bool(ByteCursor& cursor, const Field& field) {
  const uint64_t at = cursor.offset();
  const auto value = cursor.read<uint8_t>(field);
  if (value > 1) cursor.fail(field, at, "a bool is 0 or 1, not " + std::to_string(value));
  return value == 1;
}

// Reads `count` elements of Stored, widened to Widened. Room grows as bytes are seen.
template <class Stored, class Widened>
std::vector<Widened> read_numbers(ByteCursor& cursor, uint64_t count, const Field& field) {
  constexpr uint64_t kChunk = 4096;
  std::vector<Widened> numbers;
  std::vector<Stored> chunk;
  while (numbers.size() < count) {
    chunk.resize(std::min(kChunk, count - numbers.size()));
    cursor.read_bytes(std::as_writable_bytes(std::span(chunk)), field);
    numbers.insert(numbers.end(), chunk.begin(), chunk.end());
  }
  return numbers;
}

std::vector<bool> read_bools(ByteCursor& cursor, uint64_t count, const Field& field) {
  std::vector<bool> values;
  for (uint64_t i = 0; i < count; ++i) values.push_back(read_bool(cursor, field));
  return values;
}

StringArray read_strings(ByteCursor& cursor, uint64_t count, const Field& field) {
  StringArray strings;
  for (uint64_t i = 0; i < count; ++i) {
    cursor.read_string(strings.bytes, kMaxStringBytes, field);
    strings.ends.push_back(strings.bytes.size());
  }
  return strings;
}

uint64_t least_bytes(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
    case ValueType::kInt8:
    case ValueType::kBool:
      return 1;
    case ValueType::kUint16:
    case ValueType::kInt16:
      return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32:
      return 4;
    default:
      return 8;  // 64-bit numbers, and the length of a string
  }
}

}  // namespace

MetadataValue ValueReader::read_array(std::string_view key) {
  const uint64_t at = cursor_.offset();
  const ValueType type = read_type(cursor_, {"metadata", key, "element type"});
  if (type == ValueType::kArray) {
    cursor_.fail(ErrorCode::kUnsupported, {"metadata", key, "element type"}, at,
                 "arrays of arrays are not supported");
  }
  const uint64_t count =
      cursor_.read_count(least_bytes(type), elements_left_, {"metadata", key, "length"});
  elements_left_ -= count;
  const Field field{"metadata", key, "elements"};
  switch (type) {
    case ValueType::kUint8:
      return read_numbers<uint8_t, uint64_t>(cursor_, count, field);
    case ValueType::kInt8:
      return read_numbers<int8_t, int64_t>(cursor_, count, field);
    case ValueType::kUint16:
      return read_numbers<uint16_t, uint64_t>(cursor_, count, field);
    case ValueType::kInt16:
      return read_numbers<int16_t, int64_t>(cursor_, count, field);
    case ValueType::kUint32:
      return read_numbers<uint32_t, uint64_t>(cursor_, count, field);
    case ValueType::kInt32:
      return read_numbers<int32_t, int64_t>(cursor_, count, field);
    case ValueType::kUint64:
      return read_numbers<uint64_t, uint64_t>(cursor_, count, field);
    case ValueType::kInt64:
      return read_numbers<int64_t, int64_t>(cursor_, count, field);
    case ValueType::kFloat32:
      return read_numbers<float, double>(cursor_, count, field);
    case ValueType::kFloat64:
      return read_numbers<double, double>(cursor_, count, field);
    case ValueType::kBool:
      return read_bools(cursor_, count, field);
    default:
      return read_strings(cursor_, count, field);
  }
}

MetadataValue ValueReader::read(std::string_view key) {
  const Field field{"metadata", key, "value"};
  switch (read_type(cursor_, {"metadata", key, "type"})) {
    case ValueType::kUint8:
      return uint64_t{cursor_.read<uint8_t>(field)};
    case ValueType::kInt8:
      return int64_t{cursor_.read<int8_t>(field)};
    case ValueType::kUint16:
      return uint64_t{cursor_.read<uint16_t>(field)};
    case ValueType::kInt16:
      return int64_t{cursor_.read<int16_t>(field)};
    case ValueType::kUint32:
      return uint64_t{cursor_.read<uint32_t>(field)};
    case ValueType::kInt32:
      return int64_t{cursor_.read<int32_t>(field)};
    case ValueType::kFloat32:
      return double{cursor_.read<float>(field)};
    case ValueType::kBool:
      return read_bool(cursor_, field);
    case ValueType::kString: {
      std::string text;
      cursor_.read_string(text, kMaxStringBytes, field);
      return text;
    }
    case ValueType::kArray:
      return read_array(key);
    case ValueType::kUint64:
      return cursor_.read<uint64_t>(field);
    case ValueType::kInt64:
      return cursor_.read<int64_t>(field);
    case ValueType::kFloat64:
      return cursor_.read<double>(field);
  }
  return false;  // not reached: read_type knows the types
}

}  // namespace edgemoe
