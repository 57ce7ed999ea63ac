#include "gguf_checks.h"

namespace edgemoe::test {
namespace {

// Where the fields of a first tensor called "w" lie, after 24 bytes of header.
constexpr size_t kName = 24;
constexpr size_t kDimensions = kName + 8 + 1;
constexpr size_t kShape = kDimensions + 4;
constexpr size_t kType = kShape + 2 * 8;  // of two dimensions
constexpr size_t kOffset = kType + 4;

GgufImage with_shape(std::vector<uint64_t> shape, uint32_t type = 0) {
  GgufImage image;
  image.tensors.push_back({"w", std::move(shape), type, std::string(4096, '\0')});
  return image;
}

}  // namespace

TEST("gguf tensors: shape, type, offset and size are read") {
  GgufImage image;
  image.add("general.name", "test");
  image.add_tensor("first", QuantType::kF32, {3});
  image.add_tensor("second", QuantType::kQ4_K, {512, 3, 2});
  const GgufFile file = parse(image);
  REQUIRE(file.tensors().size() == 2);
  const size_t data = (image.header().size() + 31) / 32 * 32;
  const TensorInfo& first = file.tensors()[0];
  CHECK_EQUAL(first.name, "first");
  CHECK_EQUAL(first.num_dimensions, 1u);
  CHECK_EQUAL(first.columns(), 3u);
  CHECK_EQUAL(first.rows(), 1u);
  CHECK_EQUAL(first.bytes, 12u);
  CHECK_EQUAL(first.offset, data);
  const TensorInfo* second = file.find("second");
  REQUIRE(second == &file.tensors()[1]);
  CHECK(second->type == QuantType::kQ4_K);
  CHECK((second->shape == std::array<uint64_t, 4>{512, 3, 2, 1}));
  CHECK_EQUAL(second->bytes, 2u * 144 * 6);
  CHECK_EQUAL(second->offset, data + 32);
  CHECK_EQUAL(second->shard, 0u);
  CHECK(file.find("third") == nullptr);
}

TEST("gguf tensors: a moved file still finds its tensors") {
  GgufImage image;
  image.add_tensor("w", QuantType::kF32, {4});
  GgufFile file = parse(image);
  const GgufFile moved = std::move(file);
  REQUIRE(moved.find("w") != nullptr);
  CHECK_EQUAL(moved.find("w")->name, "w");
}

TEST("gguf tensors: every quantisation type opens") {
  GgufImage image;
  for (const QuantTraits& quant : all_quant_types()) {
    image.add_tensor(std::string(quant.name), quant.type, {quant.block_elements * 2, 3});
  }
  const GgufFile file = parse(image);
  for (const QuantTraits& quant : all_quant_types()) {
    const TensorInfo* tensor = file.find(quant.name);
    REQUIRE(tensor != nullptr);
    CHECK_EQUAL(tensor->bytes, 6u * quant.block_bytes);
  }
}

TEST("gguf tensors: offsets follow general.alignment, its place among the keys is free") {
  for (const uint32_t alignment : {8u, 64u, 4096u, 1u << 20}) {
    GgufImage image;
    image.alignment = alignment;
    image.add("general.name", "test").add("general.alignment", alignment);
    image.add_tensor("a", QuantType::kF32, {1}).add_tensor("b", QuantType::kF32, {1});
    const GgufFile file = parse(image);
    CHECK_EQUAL(file.find("a")->offset % alignment, 0u);
    CHECK_EQUAL(file.find("b")->offset, file.find("a")->offset + alignment);
  }
}

TEST("gguf tensors: gaps and any order of the data are allowed") {
  GgufImage image;
  image.tensors.push_back({"late", {8}, 0, std::string(32, '\0'), 96});
  image.tensors.push_back({"early", {8}, 0, std::string(96, '\0'), 0});
  const GgufFile file = parse(image);
  CHECK_EQUAL(file.find("late")->offset, file.find("early")->offset + 96);
}

TEST("gguf tensors: 0, 5 and 2^32-1 dimensions are refused") {
  check_refused(with_shape({}), ErrorCode::kFormat,
                {"tensor 'w', its number of dimensions", at_offset(kDimensions), "0; 1 to 4"});
  check_refused(with_shape({1, 1, 1, 1, 1}), ErrorCode::kFormat,
                {"tensor 'w', its number of dimensions", at_offset(kDimensions), "5; 1 to 4"});
  std::string bytes = with_shape({1, 1}).build();
  bytes.replace(kDimensions, 4, gguf_bytes(UINT32_MAX));
  check_refused(bytes, ErrorCode::kFormat, {"number of dimensions", "4294967295; 1 to 4"});
}

TEST("gguf tensors: a dimension of 0 is refused") {
  check_refused(with_shape({0, 5}), ErrorCode::kFormat,
                {"tensor 'w', its shape", at_offset(kShape), "dimension 0 is 0"});
  check_refused(with_shape({5, 0}), ErrorCode::kFormat,
                {"tensor 'w', its shape", at_offset(kShape + 8), "dimension 1 is 0"});
  check_refused(with_shape({UINT64_MAX, 0, UINT64_MAX}), ErrorCode::kFormat, {"its shape"});
}

TEST("gguf tensors: shapes whose product overflows are refused") {
  constexpr uint64_t k32 = uint64_t{1} << 32;
  for (const std::vector<uint64_t>& shape : std::initializer_list<std::vector<uint64_t>>{
           {UINT64_MAX},
           {uint64_t{1} << 63},
           {k32, k32},                    // wraps to 0
           {k32, k32, 4},                 // wraps to 0
           {k32, k32 + 1, 1},             // wraps to 2^32
           {3, 0x5555555555555556},       // wraps to 2
           {uint64_t{1} << 62, 4, 1, 1},  // wraps to 0
           {uint64_t{1} << 31, 1 << 15, 1 << 15, 1 << 15}}) {
    check_refused(with_shape(shape), ErrorCode::kFormat,
                  {"tensor 'w', its shape at offset", "too many elements"});
  }
}

TEST("gguf tensors: a size that the file cannot hold is refused, whatever the type") {
  for (const QuantTraits& quant : all_quant_types()) {
    check_refused(with_shape({uint64_t{1} << 55, 1}, quant.ggml_id), ErrorCode::kFormat,
                  {"tensor 'w', its offset", at_offset(kOffset), "past the end of the file"});
  }
}

TEST("gguf tensors: rows that are not whole blocks are refused") {
  for (const QuantTraits& quant : all_quant_types()) {
    if (quant.block_elements == 1) continue;
    for (const uint64_t columns : {quant.block_elements - 1, quant.block_elements + 1, 1u}) {
      check_refused(with_shape({columns, 2}, quant.ggml_id), ErrorCode::kFormat,
                    {"tensor 'w', its type", at_offset(kType), std::string(quant.name) + " blocks",
                     std::to_string(columns) + " elements"});
    }
  }
}

TEST("gguf tensors: removed types are refused by name") {
  const std::pair<uint32_t, const char*> kRemoved[] = {
      {4, "Q4_2"},      {5, "Q4_3"},        {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
      {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}};
  for (const auto& [id, name] : kRemoved) {
    check_refused(with_shape({256, 2}, id), ErrorCode::kUnsupported,
                  {"tensor 'w', its type", at_offset(kType), std::to_string(id), name, "removed"});
  }
}

TEST("gguf tensors: types that hold no weights are refused by name") {
  const std::pair<uint32_t, const char*> kOther[] = {
      {9, "Q8_1"}, {15, "Q8_K"}, {24, "I8"}, {25, "I16"}, {26, "I32"}, {27, "I64"}, {28, "F64"}};
  for (const auto& [id, name] : kOther) {
    check_refused(with_shape({256, 2}, id), ErrorCode::kUnsupported,
                  {"tensor 'w', its type", at_offset(kType), name, "not supported"});
  }
}

TEST("gguf tensors: unknown types are refused") {
  for (const uint32_t id : {43u, 1000u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    check_refused(with_shape({256, 2}, id), ErrorCode::kUnsupported,
                  {"tensor 'w', its type", at_offset(kType), std::to_string(id), "unknown"});
  }
}

TEST("gguf tensors: every type number is known or refused, none is divided by") {
  for (uint32_t id = 0; id < 300; ++id) {
    const std::string bytes = with_shape({256, 2}, id).build();
    if (quant_type_from_ggml_id(id)) {
      CHECK_EQUAL(GgufFile::parse(bytes_of(bytes), "model.gguf").tensors().size(), 1u);
    } else {
      check_refused(bytes, ErrorCode::kUnsupported, {"tensor 'w', its type"});
    }
  }
}

TEST("gguf tensors: an unaligned offset is refused") {
  for (const uint64_t offset : {uint64_t{1}, uint64_t{16}, uint64_t{33}, UINT64_MAX}) {
    GgufImage image = with_shape({4, 4});
    image.tensors[0].offset = offset;
    check_refused(image, ErrorCode::kFormat,
                  {"tensor 'w', its offset", at_offset(kOffset), "not a multiple"});
  }
}

TEST("gguf tensors: data past the end of the file is refused, also when the sum wraps") {
  for (const uint64_t offset : {uint64_t{4096}, uint64_t{1} << 63, UINT64_MAX - 31}) {
    GgufImage image = with_shape({4, 4});
    image.tensors[0].offset = offset;
    check_refused(image, ErrorCode::kFormat,
                  {"tensor 'w', its offset", at_offset(kOffset), "past the end"});
  }
  std::string bytes = with_shape({32, 32}).build();
  bytes.pop_back();
  check_refused(bytes, ErrorCode::kFormat, {"tensor 'w', its offset", "4096 bytes"});
}

TEST("gguf tensors: overlapping tensors are refused, both named") {
  GgufImage image = with_shape({32, 32});
  const size_t second = image.header().size();
  for (const uint64_t offset : {uint64_t{0}, uint64_t{32}, uint64_t{4064}}) {
    image.tensors.resize(1);
    image.tensors.push_back({"v", {8}, 0, std::string(4096, '\0'), offset});
    const std::string message = ERROR_MESSAGE(ErrorCode::kFormat, parse(image));
    check_mentions(message, {"tensor 'w'", "tensor 'v'", "overlaps", "its offset at offset"});
    if (offset != 0) check_mentions(message, {at_offset(second + 8 + 1 + 4 + 8 + 4)});
  }
}

TEST("gguf tensors: a repeated name is refused") {
  GgufImage image;
  image.add_tensor("w", QuantType::kF32, {4});
  const size_t second = image.header().size();
  image.add_tensor("w", QuantType::kF32, {4});
  check_refused(image, ErrorCode::kFormat, {"tensor 'w'", at_offset(second), "appears twice"});
}

TEST("gguf tensors: bad names are refused") {
  for (const std::string& name :
       {std::string(), std::string("a\0b", 3), std::string("a\nb"), std::string(128, 'n')}) {
    GgufImage image;
    image.add_tensor(name, QuantType::kF32, {4});
    check_refused(image, ErrorCode::kFormat, {"tensor", at_offset(kName)});
  }
  for (const uint64_t length : {uint64_t{1} << 62, UINT64_MAX}) {
    std::string bytes = with_shape({4, 4}).build();
    bytes.replace(kName, 8, gguf_bytes(length));
    check_refused(bytes, ErrorCode::kFormat, {"tensor name", at_offset(kName)});
  }
}

TEST("gguf tensors: 100000 tensors are checked in linear time") {
  GgufImage image;
  image.alignment = 8;
  image.add("general.alignment", uint32_t{8});
  for (int i = 0; i < 100000; ++i) {
    image.add_tensor("t" + std::to_string(i), QuantType::kF32, {1});
  }
  const GgufFile file = parse(image);
  CHECK_EQUAL(file.tensors().size(), 100000u);
  CHECK_EQUAL(file.find("t99999")->offset, file.find("t0")->offset + 8u * 99999);
}

}  // namespace edgemoe::test
