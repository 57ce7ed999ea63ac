#include "gguf/gguf_file.h"

#include <cstring>

#include "base/error.h"
#include "gguf/header_reader.h"
#include "gguf/shards.h"
#include "io/file.h"

namespace edgemoe {
namespace {

class FileSource final : public ByteSource {
 public:
  explicit FileSource(const std::string& path) : file_(path, FileAccess::kBuffered) {}
  uint64_t size() const noexcept override { return file_.size(); }
  void read(uint64_t offset, std::span<std::byte> out) const override {
    file_.read_exact(offset, out);
  }

 private:
  File file_;
};

class ImageSource final : public ByteSource {
 public:
  explicit ImageSource(std::span<const std::byte> image) : image_(image) {}
  uint64_t size() const noexcept override { return image_.size(); }
  void read(uint64_t offset, std::span<std::byte> out) const override {
    std::memcpy(out.data(), image_.data() + offset, out.size());
  }

 private:
  std::span<const std::byte> image_;
};

constexpr uint64_t kMaxShards = 99999;

// What a shard says of itself must agree with its name and with the other shards.
void check_shard(const Metadata& metadata, uint32_t number, uint32_t count) {
  const uint64_t said_count = metadata.get_uint_or("split.count", 1, kMaxShards);
  const uint64_t said_number = metadata.get_uint_or("split.no", number - 1, kMaxShards);
  if (said_count == count && said_number == number - 1) return;
  throw Error(ErrorCode::kFormat,
              metadata.source() + ": metadata 'split.no' and 'split.count' say shard " +
                  std::to_string(said_number + 1) + " of " + std::to_string(said_count) +
                  ", the name says " + std::to_string(number) + " of " + std::to_string(count) +
                  "; shards keep the names that they were given");
}

void check_tensor_count(const Metadata& metadata, size_t found) {
  const uint64_t expected = metadata.get_uint_or("split.tensors.count", found, 1u << 30);
  if (expected == found) return;
  throw Error(ErrorCode::kFormat, metadata.source() + ": metadata 'split.tensors.count' is " +
                                      std::to_string(expected) + ", the shards hold " +
                                      std::to_string(found) + " tensors; a shard is damaged");
}

}  // namespace

// Joins the headers of the shards.
class GgufReader {
 public:
  static GgufFile open(const std::string& path) {
    GgufFile file;
    file.paths_ = shard_paths(path);
    const auto count = static_cast<uint32_t>(file.paths_.size());
    for (uint32_t shard = 0; shard < count; ++shard) {
      const FileSource source(file.paths_[shard]);
      GgufHeader header = read_gguf_header(source, file.paths_[shard]);
      check_shard(header.metadata, shard + 1, count);
      add_shard(file, std::move(header), shard, source.size());
    }
    finish(file);
    return file;
  }

  static GgufFile parse(std::span<const std::byte> image, const std::string& name) {
    GgufFile file;
    file.paths_ = {name};
    const ImageSource source(image);
    GgufHeader header = read_gguf_header(source, name);
    check_shard(header.metadata, 1, 1);
    add_shard(file, std::move(header), 0, source.size());
    finish(file);
    return file;
  }

 private:
  static void add_shard(GgufFile& file, GgufHeader header, uint32_t shard, uint64_t bytes) {
    if (shard == 0) {
      file.metadata_ = std::move(header.metadata);
      file.version_ = header.version;
    }
    file.file_bytes_ += bytes;
    for (TensorInfo& tensor : header.tensors) {
      tensor.shard = shard;
      file.tensors_.push_back(std::move(tensor));
    }
  }

  static void finish(GgufFile& file) {
    check_tensor_count(file.metadata_, file.tensors_.size());
    for (size_t i = 0; i < file.tensors_.size(); ++i) {
      const TensorInfo& tensor = file.tensors_[i];
      const auto [found, is_new] = file.by_name_.emplace(tensor.name, i);
      if (is_new) continue;
      throw Error(ErrorCode::kFormat, file.paths_[tensor.shard] + ": tensor '" + tensor.name +
                                          "' is also in " +
                                          file.paths_[file.tensors_[found->second].shard]);
    }
  }
};

GgufFile GgufFile::open(const std::string& path) {
  return GgufReader::open(path);
}

GgufFile GgufFile::parse(std::span<const std::byte> image, const std::string& name) {
  return GgufReader::parse(image, name);
}

const TensorInfo* GgufFile::find(std::string_view name) const noexcept {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::drop_vocabulary() noexcept {
  metadata_.drop_arrays("tokenizer.");
}

}  // namespace edgemoe
