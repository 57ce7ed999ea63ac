#include <algorithm>
#include <chrono>
#include <cstring>

#include "gguf/byte_cursor.h"
#include "gguf/header_reader.h"
#include "gguf_checks.h"

namespace edgemoe::test {
namespace {

constexpr uint64_t kHuge = uint64_t{1} << 62;
constexpr size_t kFirstEntry = 24;  // after magic, version and two counts

// One image with every kind of value and two tensors.
GgufImage full_image() {
  GgufImage image;
  image.add("general.architecture", "test").add("u8", uint8_t{200}).add("i8", int8_t{-100});
  image.add("u16", uint16_t{60000}).add("i16", int16_t{-30000}).add("u32", uint32_t{4000000000});
  image.add("i32", int32_t{-5}).add("u64", uint64_t{1} << 63).add("i64", INT64_MIN);
  image.add("f32", 0.5f).add("f64", 0.1).add("flag", true);
  image.add_array<uint8_t>("u8s", {1, 255}).add_array<int8_t>("i8s", {-1, 5});
  image.add_array<uint16_t>("u16s", {1, 65535}).add_array<int16_t>("i16s", {-1, 5});
  image.add_array<uint32_t>("u32s", {1, 2}).add_array<int32_t>("i32s", {-1, 5});
  image.add_array<uint64_t>("u64s", {1, 2}).add_array<int64_t>("i64s", {-1, 5});
  image.add_array<float>("f32s", {0.5f}).add_array<double>("f64s", {0.1});
  image.add_array<bool>("flags", {true, false});
  image.add_array("words", std::vector<std::string>{"", "a", std::string("\0\xFF", 2)});
  image.add_array<uint32_t>("none", {});
  image.add_tensor("a.weight", QuantType::kQ8_0, {64, 3});
  image.add_tensor("b.weight", QuantType::kF32, {5, 2, 3, 2});
  return image;
}

template <class T>
T value_of(const GgufFile& file, std::string_view key) {
  const MetadataValue* value = file.metadata().find(key);
  REQUIRE(value != nullptr);
  REQUIRE(std::holds_alternative<T>(*value));
  return std::get<T>(*value);
}

// A huge file of zeros.
class ZeroSource final : public ByteSource {
 public:
  uint64_t size() const noexcept override { return kHuge; }
  void read(uint64_t, std::span<std::byte> out) const override {
    std::memset(out.data(), 0, out.size());
  }
};

// A source that counts what is read from it.
class CountingSource final : public ByteSource {
 public:
  CountingSource(const std::string& image, uint64_t size) : image_(image), size_(size) {}
  uint64_t size() const noexcept override { return size_; }
  void read(uint64_t offset, std::span<std::byte> out) const override {
    last_byte_ = std::max(last_byte_, offset + out.size());
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] =
          offset + i < image_.size() ? static_cast<std::byte>(image_[offset + i]) : std::byte{0};
    }
  }
  uint64_t last_byte() const { return last_byte_; }

 private:
  const std::string& image_;
  uint64_t size_;
  mutable uint64_t last_byte_ = 0;
};

}  // namespace

TEST("gguf header: every value type is read, integers widened") {
  const GgufFile file = parse(full_image());
  CHECK_EQUAL(value_of<uint64_t>(file, "u8"), 200u);
  CHECK_EQUAL(value_of<int64_t>(file, "i8"), -100);
  CHECK_EQUAL(value_of<uint64_t>(file, "u16"), 60000u);
  CHECK_EQUAL(value_of<int64_t>(file, "i16"), -30000);
  CHECK_EQUAL(value_of<uint64_t>(file, "u32"), 4000000000u);
  CHECK_EQUAL(value_of<int64_t>(file, "i32"), -5);
  CHECK_EQUAL(value_of<uint64_t>(file, "u64"), uint64_t{1} << 63);
  CHECK_EQUAL(value_of<int64_t>(file, "i64"), INT64_MIN);
  CHECK_EQUAL(value_of<double>(file, "f32"), 0.5);
  CHECK_EQUAL(value_of<double>(file, "f64"), 0.1);
  CHECK(value_of<bool>(file, "flag"));
  CHECK_EQUAL(value_of<std::string>(file, "general.architecture"), "test");
}

TEST("gguf header: every array type is read, strings byte for byte") {
  const GgufFile file = parse(full_image());
  for (const char* key : {"i8s", "i16s", "i32s", "i64s"}) {
    CHECK((value_of<std::vector<int64_t>>(file, key) == std::vector<int64_t>{-1, 5}));
  }
  CHECK((value_of<std::vector<uint64_t>>(file, "u8s") == std::vector<uint64_t>{1, 255}));
  CHECK((value_of<std::vector<uint64_t>>(file, "u16s") == std::vector<uint64_t>{1, 65535}));
  CHECK((value_of<std::vector<uint64_t>>(file, "u32s") == std::vector<uint64_t>{1, 2}));
  CHECK((value_of<std::vector<uint64_t>>(file, "u64s") == std::vector<uint64_t>{1, 2}));
  CHECK((value_of<std::vector<double>>(file, "f32s") == std::vector<double>{0.5}));
  CHECK((value_of<std::vector<double>>(file, "f64s") == std::vector<double>{0.1}));
  CHECK((value_of<std::vector<bool>>(file, "flags") == std::vector<bool>{true, false}));
  CHECK(value_of<std::vector<uint64_t>>(file, "none").empty());
  const auto words = value_of<StringArray>(file, "words");
  REQUIRE(words.size() == 3);
  CHECK_EQUAL(words[0], "");
  CHECK_EQUAL(words[1], "a");
  CHECK(words[2] == std::string_view("\0\xFF", 2));
}

TEST("gguf header: versions 2 and 3 are read") {
  for (const uint32_t version : {2u, 3u}) {
    GgufImage image = full_image();
    image.version = version;
    const GgufFile file = parse(image);
    CHECK_EQUAL(file.version(), version);
    CHECK_EQUAL(file.file_bytes(), image.build().size());
    REQUIRE(file.paths().size() == 1);
    CHECK_EQUAL(file.paths()[0], "model.gguf");
  }
}

TEST("gguf header: a file without tensors and metadata opens") {
  CHECK(parse(GgufImage{}).tensors().empty());
}

TEST("gguf header: the empty file, a wrong magic and other files are refused") {
  check_refused(std::string(), ErrorCode::kFormat, {"magic", "at offset 0:", "ends after 0 bytes"});
  check_refused(std::string("GG"), ErrorCode::kFormat, {"magic", "ends after 2 bytes"});
  GgufImage image;
  for (const char* magic : {"GGML", "FUGG", "vers", "\x7F\0LF"}) {
    image.magic = std::string(magic, 4);
    check_refused(image, ErrorCode::kFormat, {"magic at offset 0:", "this is no GGUF file"});
  }
}

TEST("gguf header: other versions and big-endian files are refused by name") {
  GgufImage image;
  for (const uint32_t version : {0u, 1u, 4u, 0xFFFFFFFFu}) {
    image.version = version;
    check_refused(image, ErrorCode::kUnsupported,
                  {"version at offset 4:", "GGUF version " + std::to_string(version)});
  }
  for (const uint32_t version : {0x02000000u, 0x03000000u}) {
    image.version = version;
    check_refused(image, ErrorCode::kUnsupported, {"version at offset 4:", "big-endian"});
  }
}

TEST("gguf header: counts that the file cannot hold are refused at once") {
  for (const uint64_t count : {uint64_t{1}, kHuge, uint64_t{1} << 61, UINT64_MAX}) {
    GgufImage image;
    image.num_tensors = count;
    check_refused(image, ErrorCode::kFormat, {"number of tensors at offset 8:"});
    image.num_tensors = 0;
    image.num_entries = count;
    check_refused(image, ErrorCode::kFormat, {"number of metadata entries at offset 16:"});
  }
}

TEST("gguf header: counts above the limits are refused even in a huge file") {
  GgufImage image;
  image.num_tensors = 1u << 30;
  const std::string bytes = image.build();
  const CountingSource source(bytes, kHuge);
  const std::string message =
      ERROR_MESSAGE(ErrorCode::kFormat, read_gguf_header(source, "model.gguf"));
  check_mentions(message, {"number of tensors at offset 8:", "at most 262144"});
  CHECK(source.last_byte() <= 256 * 1024);
}

TEST("gguf header: fewer entries than counted end in an error") {
  GgufImage image = full_image();
  image.num_entries = image.entries.size() + 1;
  check_refused(image, ErrorCode::kFormat, {"offset"});
  image = full_image();
  image.num_tensors = image.tensors.size() + 1;
  check_refused(image, ErrorCode::kFormat, {"tensor name at offset"});
}

TEST("gguf header: bad keys are refused") {
  const std::string long_key(65536, 'k');
  for (const std::string& key : {std::string(), std::string("a b"), std::string("k\xC3\xA9y"),
                                 std::string("a\nb"), std::string("a\0b", 3), long_key}) {
    GgufImage image;
    image.add(key, 1u);
    check_refused(image, ErrorCode::kFormat, {"metadata key", at_offset(kFirstEntry)});
  }
}

TEST("gguf header: a key length beyond the file is refused") {
  for (const uint64_t length : {uint64_t{100}, kHuge, UINT64_MAX}) {
    GgufImage image;
    image.num_entries = 1;
    check_refused(image.build() + gguf_bytes(length) + std::string(20, 'k'), ErrorCode::kFormat,
                  {"metadata key", at_offset(kFirstEntry), std::to_string(length) + " bytes"});
  }
}

TEST("gguf header: a repeated key is refused, with its offset") {
  GgufImage image;
  image.add("twice", 1u);
  const size_t second = image.header().size();
  image.add("twice", 2u);
  check_refused(image, ErrorCode::kFormat, {"metadata key", at_offset(second), "'twice' appears"});
}

TEST("gguf header: a string longer than the file is refused") {
  const size_t value_at = kFirstEntry + 8 + 4 + 4;
  for (const uint64_t length : {uint64_t{5}, kHuge, UINT64_MAX, UINT64_MAX - 7}) {
    GgufImage image;
    image.add_entry("text", GgufValue::kString, gguf_bytes(length) + "abcd");
    check_refused(image, ErrorCode::kFormat,
                  {"metadata 'text', its value", at_offset(value_at), std::to_string(length)});
  }
}

TEST("gguf header: a string above 16 MiB is refused though the file holds it") {
  GgufImage image;
  image.add("text", std::string((16u << 20) + 1, 'x'));
  check_refused(image, ErrorCode::kFormat, {"metadata 'text', its value", "at most 16777216"});
}

TEST("gguf header: an array longer than the file is refused before it is read") {
  const size_t length_at = kFirstEntry + 8 + 4 + 4 + 4;
  for (const GgufValue type : {GgufValue::kUint8, GgufValue::kInt16, GgufValue::kFloat32,
                               GgufValue::kBool, GgufValue::kString, GgufValue::kFloat64}) {
    for (const uint64_t length : {uint64_t{17}, kHuge, uint64_t{1} << 63, UINT64_MAX}) {
      GgufImage image;
      image.add_entry("list", GgufValue::kArray,
                      gguf_array_bytes(type, length, std::string(16, '\0')));
      check_refused(image, ErrorCode::kFormat,
                    {"metadata 'list', its length", at_offset(length_at), std::to_string(length)});
    }
  }
}

TEST("gguf header: elements of an array that run past the file are refused") {
  GgufImage image;
  image.add_entry("list", GgufValue::kArray,
                  gguf_array_bytes(GgufValue::kString, 2, gguf_bytes("ok") + gguf_bytes(kHuge)));
  check_refused(image, ErrorCode::kFormat, {"metadata 'list', its elements at offset"});
}

TEST("gguf header: arrays together are bounded, so that widening cannot exhaust memory") {
  GgufImage image;
  const std::string elements(9u << 20, '\0');
  for (const char* key : {"first", "second"}) {
    image.add_entry(key, GgufValue::kArray,
                    gguf_array_bytes(GgufValue::kUint8, elements.size(), elements));
  }
  check_refused(image, ErrorCode::kFormat, {"metadata 'second', its length", "at most"});
}

TEST("gguf header: nested arrays are refused at the first level") {
  std::string nested;
  for (int depth = 0; depth < 10000; ++depth) {
    nested += gguf_array_bytes(GgufValue::kArray, 1, "");
  }
  GgufImage image;
  image.add_entry("nest", GgufValue::kArray, nested);
  check_refused(image, ErrorCode::kUnsupported,
                {"metadata 'nest', its element type", at_offset(kFirstEntry + 8 + 4 + 4),
                 "arrays of arrays"});
}

TEST("gguf header: unknown value types are refused") {
  for (const uint32_t type : {13u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    GgufImage image;
    image.add_entry("odd", static_cast<GgufValue>(type), std::string(16, '\0'));
    check_refused(image, ErrorCode::kFormat,
                  {"metadata 'odd', its type", at_offset(kFirstEntry + 8 + 3)});
    image.entries.clear();
    image.add_entry("odd", GgufValue::kArray,
                    gguf_array_bytes(static_cast<GgufValue>(type), 1, std::string(16, '\0')));
    check_refused(image, ErrorCode::kFormat,
                  {"metadata 'odd', its element type", at_offset(kFirstEntry + 8 + 3 + 4)});
  }
}

TEST("gguf header: a bool other than 0 and 1 is refused, in arrays too") {
  GgufImage image;
  image.add_entry("flag", GgufValue::kBool, "\x02");
  check_refused(image, ErrorCode::kFormat,
                {"metadata 'flag', its value", at_offset(kFirstEntry + 8 + 4 + 4)});
  image.entries.clear();
  image.add_entry("flag", GgufValue::kArray,
                  gguf_array_bytes(GgufValue::kBool, 2, std::string("\x01\xFF")));
  check_refused(image, ErrorCode::kFormat,
                {"metadata 'flag', its elements", at_offset(kFirstEntry + 8 + 4 + 4 + 12 + 1)});
}

TEST("gguf header: the alignment is an unsigned power of two from 8 to 1 MiB") {
  const size_t value_at = kFirstEntry + 8 + 17;
  for (const uint32_t alignment : {0u, 1u, 4u, 13u, 33u, 1u << 21, 0x80000000u, 0xFFFFFFFFu}) {
    GgufImage image;
    image.add("general.alignment", alignment);
    check_refused(image, ErrorCode::kFormat,
                  {"metadata 'general.alignment', its value", at_offset(value_at),
                   std::to_string(alignment)});
  }
  GgufImage image;
  image.add("general.alignment", "32");
  check_refused(image, ErrorCode::kFormat, {"general.alignment", "not an unsigned number"});
  image.entries.clear();
  image.add_array<uint32_t>("general.alignment", {32});
  check_refused(image, ErrorCode::kFormat, {"general.alignment", "not an unsigned number"});
  image.entries.clear();
  image.add("general.alignment", int32_t{-32});
  check_refused(image, ErrorCode::kFormat, {"general.alignment", "not an unsigned number"});
}

TEST("gguf header: every prefix of a file is refused and names an offset") {
  const GgufImage image = full_image();
  const std::string bytes = image.build();
  for (size_t length = 0; length < bytes.size(); ++length) {
    check_refused(bytes.substr(0, length), ErrorCode::kFormat, {"at offset"});
  }
  CHECK_EQUAL(parse(image).tensors().size(), 2u);
}

TEST("gguf header: bytes after the last tensor are allowed") {
  const std::string bytes = full_image().build() + std::string(100, '\xAA');
  CHECK_EQUAL(GgufFile::parse(bytes_of(bytes), "model.gguf").tensors().size(), 2u);
}

TEST("gguf header: a flipped byte anywhere gives an error or opens") {
  const std::string good = full_image().build();
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      try {
        GgufFile::parse(bytes_of(bytes), "model.gguf");
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kFormat || error.code() == ErrorCode::kUnsupported);
      }
    }
  }
}

TEST("gguf header: a header above 256 MiB is refused, whatever the size of the file") {
  const ZeroSource source;
  const std::string name = "model.gguf";
  ByteCursor cursor(source, name);
  std::vector<std::byte> part(16u << 20);
  for (int i = 0; i < 16; ++i) cursor.read_bytes(part, {"part"});
  const std::string message =
      ERROR_MESSAGE(ErrorCode::kFormat, cursor.read<uint8_t>({"part", "a\nb", "last byte"}));
  check_mentions(message, {"model.gguf: part 'a?b', its last byte at offset 268435456:", "larger"});
}

TEST("gguf header: tensor data is not read") {
  GgufImage image = full_image();
  const std::string bytes = image.build();
  const CountingSource source(bytes, uint64_t{20} << 30);
  read_gguf_header(source, "model.gguf");
  CHECK(source.last_byte() <= 256 * 1024);
}

TEST("gguf header: messages stay one short line whatever the names hold") {
  GgufImage image;
  image.add(std::string(60000, 'k'), 1u);
  image.entries[0].type = 99;
  const std::string bytes = image.build();
  const std::string message =
      ERROR_MESSAGE(ErrorCode::kFormat, GgufFile::parse(bytes_of(bytes), "model.gguf"));
  CHECK(message.size() < 300);
  check_mentions(message, {"kkk...'"});
}

TEST("gguf header: a vocabulary of 150000 tokens opens in well under a second") {
  std::vector<std::string> tokens;
  for (int i = 0; i < 150000; ++i) tokens.push_back("token" + std::to_string(i));
  std::vector<std::string> merges;
  for (int i = 0; i < 280000; ++i) merges.push_back("left" + std::to_string(i) + " right");
  GgufImage image;
  image.add_array("tokenizer.ggml.tokens", tokens).add_array("tokenizer.ggml.merges", merges);
  image.add_array("tokenizer.ggml.token_type", std::vector<int32_t>(150000, 1));
  image.add("tokenizer.ggml.model", "gpt2").add("general.name", "test");
  const std::string bytes = image.build();
  const auto begin = std::chrono::steady_clock::now();
  GgufFile file = GgufFile::parse(bytes_of(bytes), "model.gguf");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  CHECK(seconds.count() < 1.0);  // 20 ms when optimised; sanitizers and busy machines take more
  CHECK_EQUAL(value_of<StringArray>(file, "tokenizer.ggml.tokens")[149999], "token149999");
  file.drop_vocabulary();
  const MetadataValue* dropped = file.metadata().find("tokenizer.ggml.merges");
  REQUIRE(dropped != nullptr);
  CHECK_EQUAL(std::get<StringArray>(*dropped).size(), 0u);
  CHECK_EQUAL(std::get<StringArray>(*dropped).bytes.capacity(), std::string().capacity());
  CHECK_EQUAL(value_of<std::vector<int64_t>>(file, "tokenizer.ggml.token_type").capacity(), 0u);
  CHECK_EQUAL(value_of<std::string>(file, "tokenizer.ggml.model"), "gpt2");
}

}  // namespace edgemoe::test
