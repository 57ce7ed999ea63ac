#include <filesystem>

#include "gguf/shards.h"
#include "gguf_checks.h"
#include "gguf_folder.h"

namespace edgemoe::test {
namespace {

constexpr const char* kNames[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                  "m-00003-of-00003.gguf"};

// Shard `index` of 3: two tensors, "a<index>" and "b<index>".
GgufImage shard(uint16_t index) {
  GgufImage image;
  if (index == 0) image.add("general.architecture", "test");
  image.add("split.no", index).add("split.count", uint16_t{3});
  image.add("split.tensors.count", int32_t{6});
  image.add_tensor("a" + std::to_string(index), QuantType::kF32, {8});
  image.add_tensor("b" + std::to_string(index), QuantType::kF16, {16});
  return image;
}

// Three shards; a test may damage them before they are written.
struct Shards {
  GgufFolder folder;
  GgufImage images[3] = {shard(0), shard(1), shard(2)};

  std::string write() const {
    for (size_t i = 0; i < 3; ++i) folder.write(kNames[i], images[i].build());
    return folder.path(kNames[0]);
  }
  std::string refusal(ErrorCode code) const {
    const std::string path = write();
    return ERROR_MESSAGE(code, GgufFile::open(path));
  }
};

GgufImage::Entry& entry(GgufImage& image, std::string_view key) {
  for (GgufImage::Entry& candidate : image.entries) {
    if (candidate.key == key) return candidate;
  }
  throw std::runtime_error("no such entry");
}

}  // namespace

TEST("gguf shards: names are taken apart, other names are single files") {
  const ShardName name = parse_shard_name("dir/a-b-00002-of-00003.gguf");
  CHECK_EQUAL(name.prefix, "dir/a-b");
  CHECK_EQUAL(name.number, 2u);
  CHECK_EQUAL(name.count, 3u);
  for (const char* path :
       {"m.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-0001-of-0003.gguf",
        "m-00001-of-00003.bin", "m-0000x-of-00003.gguf", "m-00001_of-00003.gguf",
        "m_00001-of-00003.gguf", "-00001-of-00003.gguf", "m-00001-of-00001.gguf", ".gguf", ""}) {
    CHECK_EQUAL(parse_shard_name(path).count, 1u);
    CHECK((shard_paths(path) == std::vector<std::string>{path}));
  }
  CHECK((shard_paths("d/m-00002-of-00002.gguf") ==
         std::vector<std::string>{"d/m-00001-of-00002.gguf", "d/m-00002-of-00002.gguf"}));
}

TEST("gguf shards: a name with too many shards is refused") {
  const std::string message =
      ERROR_MESSAGE(ErrorCode::kFormat, GgufFile::open("m-00001-of-99999.gguf"));
  check_mentions(message, {"m-00001-of-99999.gguf", "99999", "1024"});
}

TEST("gguf shards: any shard opens the whole model") {
  const Shards shards;
  shards.write();
  for (const char* name : kNames) {
    const GgufFile file = GgufFile::open(shards.folder.path(name));
    REQUIRE(file.paths().size() == 3);
    REQUIRE(file.tensors().size() == 6);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < 3; ++i) {
      CHECK_EQUAL(file.paths()[i], shards.folder.path(kNames[i]));
      const TensorInfo* tensor = file.find("b" + std::to_string(i));
      REQUIRE(tensor != nullptr);
      CHECK_EQUAL(tensor->shard, i);
      bytes += std::filesystem::file_size(file.paths()[i]);
    }
    CHECK_EQUAL(file.file_bytes(), bytes);
    CHECK_EQUAL(file.metadata().get_string("general.architecture"), "test");
    CHECK_EQUAL(file.metadata().source(), shards.folder.path(kNames[0]));
  }
}

TEST("gguf shards: each shard has its own alignment") {
  Shards shards;
  shards.images[1].alignment = 4096;
  shards.images[1].add("general.alignment", uint32_t{4096});
  const GgufFile file = GgufFile::open(shards.write());
  CHECK_EQUAL(file.find("a1")->offset % 4096, 0u);
  CHECK_EQUAL(file.find("b2")->offset, file.find("a2")->offset + 32);
}

TEST("gguf shards: a missing shard is named") {
  const Shards shards;
  const std::string path = shards.write();
  std::filesystem::remove(shards.folder.path(kNames[1]));
  const std::string message = ERROR_MESSAGE(ErrorCode::kIo, GgufFile::open(path));
  check_mentions(message, {kNames[1], "shard 2 of 3"});
}

TEST("gguf shards: a damaged shard is named") {
  Shards shards;
  shards.images[2].tensors[1].type = 4;
  check_mentions(shards.refusal(ErrorCode::kUnsupported), {kNames[2], "tensor 'b2'", "Q4_2"});
}

TEST("gguf shards: split.no and split.count must agree with the name") {
  Shards shards;
  entry(shards.images[1], "split.no").value = gguf_bytes(uint16_t{2});
  check_mentions(shards.refusal(ErrorCode::kFormat),
                 {kNames[1], "split.no", "shard 3 of 3", "2 of 3"});
  Shards others;
  entry(others.images[2], "split.count").value = gguf_bytes(uint16_t{4});
  check_mentions(others.refusal(ErrorCode::kFormat),
                 {kNames[2], "split.count", "shard 3 of 4", "3 of 3"});
}

TEST("gguf shards: split keys may not be missing or of another type") {
  for (const char* key : {"split.no", "split.count"}) {
    Shards shards;
    entry(shards.images[1], key).key = "other";
    check_mentions(shards.refusal(ErrorCode::kFormat), {kNames[1], key, "missing"});
  }
  Shards shards;
  entry(shards.images[0], "split.no") = {"split.no", 6, gguf_bytes(0.0f)};
  check_mentions(shards.refusal(ErrorCode::kFormat), {kNames[0], "split.no"});
}

TEST("gguf shards: a renamed shard is refused") {
  GgufImage image = shard(1);
  check_refused(image, ErrorCode::kFormat, {"split.no", "shard 2 of 3", "1 of 1"});
}

TEST("gguf shards: a file that says it is the only shard opens under any name") {
  for (const uint16_t count : {uint16_t{0}, uint16_t{1}}) {
    GgufImage image;
    image.add("split.no", uint16_t{0}).add("split.count", count);
    image.add_tensor("w", QuantType::kF32, {4});
    CHECK_EQUAL(parse(image).tensors().size(), 1u);
  }
}

TEST("gguf shards: split.tensors.count of every shard must be the number of tensors") {
  for (size_t i = 0; i < 3; ++i) {
    Shards shards;
    entry(shards.images[i], "split.tensors.count").value = gguf_bytes(int32_t{7});
    check_mentions(shards.refusal(ErrorCode::kFormat), {"split.tensors.count", "7", "6 tensors"});
  }
  Shards shards;
  entry(shards.images[0], "split.tensors.count").value = gguf_bytes(int32_t{-1});
  check_mentions(shards.refusal(ErrorCode::kFormat), {kNames[0], "split.tensors.count"});
}

TEST("gguf shards: a tensor in two shards is refused, both named") {
  Shards shards;
  shards.images[2].tensors[0].name = "a0";
  check_mentions(shards.refusal(ErrorCode::kFormat), {"tensor 'a0'", kNames[2], kNames[0]});
}

TEST("gguf shards: a file that cannot be opened is named") {
  const GgufFolder folder;
  const std::string missing = folder.path("missing.gguf");
  check_mentions(ERROR_MESSAGE(ErrorCode::kIo, GgufFile::open(missing)), {missing});
  check_mentions(ERROR_MESSAGE(ErrorCode::kIo, GgufFile::open(folder.path(""))), {folder.path("")});
}

TEST("gguf shards: every prefix of a file on disk is refused") {
  const GgufFolder folder;
  const std::string bytes = shard(0).build();
  for (size_t length = 0; length < bytes.size(); length += 7) {
    const std::string path = folder.write("cut.gguf", bytes.substr(0, length));
    check_mentions(ERROR_MESSAGE(ErrorCode::kFormat, GgufFile::open(path)), {path, "at offset"});
  }
}

TEST("gguf shards: a sparse file of 20 GB opens") {
  const GgufFolder folder;
  GgufImage image;
  image.tensors.push_back({"big", {1 << 20, 4096}, 0, ""});
  image.tensors.push_back({"after", {8}, 0, "", uint64_t{16} << 30});
  const std::string path = folder.write("big.gguf", image.build());
  std::filesystem::resize_file(path, uint64_t{20} << 30);
  const GgufFile file = GgufFile::open(path);
  CHECK_EQUAL(file.find("big")->bytes, uint64_t{16} << 30);
  CHECK_EQUAL(file.find("after")->offset, file.find("big")->offset + (uint64_t{16} << 30));
}

}  // namespace edgemoe::test
