#include "gguf/metadata.h"

#include <cmath>
#include <limits>

#include "gguf_checks.h"
#include "test.h"

namespace edgemoe::test {
namespace {

Metadata sample() {
  Metadata metadata;
  metadata.set_source("model.gguf");
  metadata.set("uint", uint64_t{7});
  metadata.set("int", int64_t{8});
  metadata.set("negative", int64_t{-1});
  metadata.set("float", 0.25);
  metadata.set("infinite", std::numeric_limits<double>::infinity());
  metadata.set("nan", std::nan(""));
  metadata.set("flag", true);
  metadata.set("text", std::string("words"));
  metadata.set("uints", std::vector<uint64_t>{1, 2, 3});
  metadata.set("ints", std::vector<int64_t>{1, 2, 3});
  metadata.set("negatives", std::vector<int64_t>{1, -2, 3});
  metadata.set("floats", std::vector<double>{0.5});
  metadata.set("flags", std::vector<bool>{true, false});
  return metadata;
}

// What every message of a getter says.
void check_message(const std::string& message, const std::string& key) {
  check_mentions(message, {"model.gguf: metadata '" + key + "'"});
}

}  // namespace

TEST("metadata: whole numbers of any integer type are read") {
  const Metadata metadata = sample();
  CHECK_EQUAL(metadata.get_uint("uint", 7), 7u);
  CHECK_EQUAL(metadata.get_uint("int", 100), 8u);
  CHECK_EQUAL(metadata.get_uint_or("missing", 42, 10), 42u);
  CHECK_EQUAL(metadata.get_uint_or("uint", 42, 10), 7u);
}

TEST("metadata: a number out of range or of another type is refused") {
  const Metadata metadata = sample();
  check_mentions(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uint("uint", 6)),
                 {"model.gguf: metadata 'uint' is 7; at most 6"});
  for (const char* key : {"negative", "float", "flag", "text", "uints", "ints", "flags"}) {
    check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uint(key, UINT64_MAX)), key);
    check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uint_or(key, 1, UINT64_MAX)), key);
  }
  check_mentions(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uint("missing", 1)),
                 {"'missing' is missing"});
}

TEST("metadata: floats are finite and not integers") {
  const Metadata metadata = sample();
  CHECK_EQUAL(metadata.get_float("float"), 0.25);
  CHECK_EQUAL(metadata.get_float_or("missing", 1.5), 1.5);
  for (const char* key : {"infinite", "nan", "uint", "int", "flag", "text", "floats", "missing"}) {
    check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_float(key)), key);
  }
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_float_or("nan", 1.0)), "nan");
}

TEST("metadata: bools and strings are of their own type") {
  const Metadata metadata = sample();
  CHECK(metadata.get_bool_or("flag", false));
  CHECK(metadata.get_bool_or("missing", true));
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_bool_or("uint", true)), "uint");
  CHECK_EQUAL(metadata.get_string("text"), "words");
  CHECK_EQUAL(metadata.get_string_or("missing", "other"), "other");
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_string("missing")), "missing");
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_string("flag")), "flag");
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_string_or("flag", "")), "flag");
}

TEST("metadata: an array has exactly the asked length, a scalar counts for all") {
  const Metadata metadata = sample();
  CHECK((metadata.get_uints("uints", 3, 3) == std::vector<uint64_t>{1, 2, 3}));
  CHECK((metadata.get_uints("ints", 3, 3) == std::vector<uint64_t>{1, 2, 3}));
  CHECK((metadata.get_uints("uint", 2, 10) == std::vector<uint64_t>{7, 7}));
  for (const size_t count : {size_t{0}, size_t{2}, size_t{4}}) {
    check_mentions(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uints("uints", count, 3)),
                   {"metadata 'uints' has 3 elements", std::to_string(count)});
  }
  CHECK((metadata.get_bools("flags", 2) == std::vector<bool>{true, false}));
  CHECK((metadata.get_bools("flag", 3) == std::vector<bool>{true, true, true}));
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_bools("flags", 3)), "flags");
}

TEST("metadata: an array of another type or with elements out of range is refused") {
  const Metadata metadata = sample();
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uints("uints", 3, 2)), "uints");
  for (const char* key : {"negatives", "floats", "flags", "text", "missing"}) {
    check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_uints(key, 3, 10)), key);
  }
  for (const char* key : {"uints", "uint", "text", "missing"}) {
    check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_bools(key, 3)), key);
  }
}

TEST("metadata: an array of strings is read whole, other types are refused") {
  Metadata metadata = sample();
  metadata.set("strings", StringArray{"abc", {1, 1, 3}});
  const StringArray& strings = metadata.get_strings("strings");
  REQUIRE(strings.size() == 3);
  CHECK_EQUAL(strings[0], "a");
  CHECK_EQUAL(strings[1], "");
  CHECK_EQUAL(strings[2], "bc");
  for (const char* key : {"text", "uints", "missing"}) {
    check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.get_strings(key)), key);
  }
}

TEST("metadata: entries keep the order of the file, a repeated key is refused") {
  Metadata metadata = sample();
  CHECK_EQUAL(metadata.entries().front().first, "uint");
  CHECK_EQUAL(metadata.entries().back().first, "flags");
  check_message(ERROR_MESSAGE(ErrorCode::kFormat, metadata.set("text", true)), "text");
  CHECK_EQUAL(metadata.get_string("text"), "words");
}

TEST("metadata: dropping arrays empties those of the prefix and keeps their kind") {
  Metadata metadata = sample();
  metadata.set("uintsmore", StringArray{std::string(1000, 'x'), {1000}});
  metadata.drop_arrays("uint");
  CHECK_EQUAL(metadata.get_uint("uint", 10), 7u);
  CHECK(std::get<std::vector<uint64_t>>(*metadata.find("uints")).capacity() == 0);
  const auto& strings = std::get<StringArray>(*metadata.find("uintsmore"));
  CHECK_EQUAL(strings.size(), 0u);
  CHECK(strings.bytes.capacity() < 100);
  CHECK_EQUAL(std::get<std::vector<int64_t>>(*metadata.find("ints")).size(), 3u);
}

}  // namespace edgemoe::test
