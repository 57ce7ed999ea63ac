// What the writer writes is what the parser reads; metadata of a source are taken over unchanged.
#include "gguf/gguf_writer.h"

#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf_image.h"
#include "test.h"

namespace edgemoe::test {
namespace {

// A file of the header alone and zeros for data.
GgufFile parsed(const GgufWriter& writer) {
  std::vector<std::byte> image = writer.header();
  image.resize(writer.file_bytes());
  return GgufFile::parse(image, "written.gguf");
}

TEST("what is set is read again") {
  GgufWriter writer(4096);
  writer.set("a.u16", gguf_value(uint16_t{65535}));
  writer.set("a.u32", gguf_value(uint32_t{7}));
  writer.set("a.i32", gguf_value(int32_t{-7}));
  writer.set("a.text", gguf_value(std::string_view("t\xC3\xA4xt")));
  const std::vector<uint64_t> numbers = {1, UINT64_MAX};
  writer.set("a.numbers", gguf_value(std::span<const uint64_t>(numbers)));
  const std::vector<float> floats = {0.5f};
  writer.set("a.floats", gguf_value(std::span<const float>(floats)));
  const std::vector<std::string> texts = {"", "Q4_K"};
  writer.set("a.texts", gguf_value(std::span<const std::string>(texts)));
  writer.set("a.u32", gguf_value(uint32_t{8}));  // replaced where it stands
  const GgufFile file = parsed(writer);
  const Metadata& metadata = file.metadata();
  CHECK_EQUAL(file.version(), 3u);
  CHECK_EQUAL(metadata.get_uint("general.alignment", UINT32_MAX), 4096u);
  CHECK_EQUAL(metadata.entries().size(), size_t{8});
  CHECK_EQUAL(metadata.entries()[2].first, "a.u32");
  CHECK_EQUAL(metadata.get_uint("a.u16", UINT32_MAX), 65535u);
  CHECK_EQUAL(metadata.get_uint("a.u32", UINT32_MAX), 8u);
  CHECK(std::get<int64_t>(*metadata.find("a.i32")) == -7);
  CHECK_EQUAL(metadata.get_string("a.text"), "t\xC3\xA4xt");
  CHECK(std::get<std::vector<uint64_t>>(*metadata.find("a.numbers")) == numbers);
  CHECK_EQUAL(metadata.get_strings("a.texts").size(), size_t{2});
  CHECK(metadata.get_strings("a.texts")[1] == "Q4_K");
}

TEST("tensors lie where the writer says") {
  for (const uint64_t alignment : {uint64_t{32}, uint64_t{4096}}) {
    GgufWriter writer(alignment);
    writer.add_tensor("one", QuantType::kF32, std::vector<uint64_t>{5});
    writer.add_tensor("two", QuantType::kQ4_K, std::vector<uint64_t>{512, 3});
    writer.add_tensor("three", QuantType::kQ8_0, std::vector<uint64_t>{32, 2, 3, 4});
    const GgufFile file = parsed(writer);
    CHECK_EQUAL(file.tensors().size(), size_t{3});
    for (size_t i = 0; i < 3; ++i) {
      CHECK_EQUAL(file.tensors()[i].offset, writer.data_begin() + writer.offset(i));
      CHECK_EQUAL(file.tensors()[i].bytes, writer.bytes(i));
      CHECK_EQUAL(file.tensors()[i].offset % alignment, 0u);
    }
    CHECK_EQUAL(file.tensors()[2].num_dimensions, 4u);
    CHECK_EQUAL(file.tensors()[2].rows(), 24u);
    CHECK(file.tensors()[1].type == QuantType::kQ4_K);
    CHECK_EQUAL(writer.file_bytes() % alignment, 0u);
    CHECK_EQUAL(writer.header().size(), writer.data_begin());
  }
}

TEST("a file of nothing is a file") {
  const GgufWriter writer(32);
  const GgufFile file = parsed(writer);
  CHECK(file.tensors().empty());
  CHECK(file.metadata().entries().empty());
}

// Every kind of value, copied by its extent, has the same bytes: also those that are widened when
// they are read.
TEST("values of a source are copied byte for byte") {
  GgufImage source;
  source.add("k.u8", uint8_t{200});
  source.add("k.i8", int8_t{-100});
  source.add("k.u16", uint16_t{60000});
  source.add("k.i16", int16_t{-30000});
  source.add("k.u64", uint64_t{1} << 60);
  source.add("k.f32", 0.1f);
  source.add("k.f64", 0.1);
  source.add("k.bool", true);
  source.add("k.text", std::string_view("text"));
  source.add_array("k.bytes", std::vector<uint8_t>{1, 2, 255});
  source.add_entry("k.bools", GgufValue::kArray,
                   gguf_array_bytes(GgufValue::kBool, 2, std::string("\1\0", 2)));
  source.add_array("k.texts", std::vector<std::string>{"x", ""});
  source.add_array("k.none", std::vector<float>{});
  const std::string bytes = source.build();
  const auto image = std::as_bytes(std::span(bytes));
  const GgufFile file = GgufFile::parse(image, "source.gguf");
  CHECK_EQUAL(file.metadata_extents().size(), file.metadata().entries().size());
  GgufWriter writer(32);
  for (size_t i = 0; i < file.metadata().entries().size(); ++i) {
    const FileExtent extent = file.metadata_extents()[i];
    writer.set(file.metadata().entries()[i].first, bytes.substr(extent.offset, extent.bytes));
  }
  const GgufFile copy = parsed(writer);
  const std::vector<std::byte> copied = writer.header();
  for (size_t i = 0; i < file.metadata().entries().size(); ++i) {
    CHECK_EQUAL(copy.metadata().entries()[i].first, file.metadata().entries()[i].first);
    const FileExtent extent = copy.metadata_extents()[i];
    const std::string value(reinterpret_cast<const char*>(copied.data()) + extent.offset,
                            extent.bytes);
    CHECK_EQUAL(value,
                bytes.substr(file.metadata_extents()[i].offset, file.metadata_extents()[i].bytes));
  }
}

}  // namespace
}  // namespace edgemoe::test
