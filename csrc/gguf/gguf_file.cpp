#include "gguf/gguf_file.h"

#include <algorithm>
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

constexpr uint64_t kMaxSplit = UINT32_MAX;

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kFormat, what);
}

// What a shard says of itself must agree with its name.
void check_shard(const Metadata& metadata, uint32_t number, uint32_t count) {
  uint64_t said_count = 1;
  uint64_t said_index = 0;
  if (count > 1 || metadata.contains("split.count")) {
    said_count = metadata.get_uint("split.count", kMaxSplit);
    said_index = metadata.get_uint("split.no", kMaxSplit);
  }
  // Tools write a count of 0 or 1 into files that are not split.
  if (std::max<uint64_t>(said_count, 1) == count && said_index == number - 1) return;
  fail(metadata.source() + ": metadata 'split.no' and 'split.count' say shard " +
       std::to_string(said_index + 1) + " of " + std::to_string(said_count) + ", the name says " +
       std::to_string(number) + " of " + std::to_string(count) +
       "; shards keep the names that they were given");
}

FileSource open_shard(const std::string& path, uint32_t number, size_t count) {
  try {
    return FileSource(path);
  } catch (const Error& error) {
    if (count == 1) throw;
    throw Error(error.code(), std::string(error.what()) + " (shard " + std::to_string(number) +
                                  " of " + std::to_string(count) +
                                  "; all shards lie in one folder)");
  }
}

}  // namespace

// Joins the headers of the shards.
class GgufReader {
 public:
  GgufFile open(const std::string& path) {
    file_.paths_ = shard_paths(path);
    const size_t count = file_.paths_.size();
    for (uint32_t shard = 0; shard < count; ++shard) {
      add_shard(open_shard(file_.paths_[shard], shard + 1, count), shard);
    }
    return finish();
  }

  GgufFile parse(std::span<const std::byte> image, const std::string& name) {
    file_.paths_ = {name};
    add_shard(ImageSource(image), 0);
    return finish();
  }

 private:
  void add_shard(const ByteSource& source, uint32_t shard) {
    GgufHeader header = read_gguf_header(source, file_.paths_[shard]);
    check_shard(header.metadata, shard + 1, static_cast<uint32_t>(file_.paths_.size()));
    if (header.metadata.contains("split.tensors.count")) {
      said_tensors_.push_back(header.metadata.get_uint("split.tensors.count", kMaxSplit));
    }
    for (TensorInfo& tensor : header.tensors) {
      tensor.shard = shard;
      file_.tensors_.push_back(std::move(tensor));
    }
    file_.file_bytes_ += source.size();
    if (shard != 0) return;
    file_.metadata_ = std::move(header.metadata);
    file_.metadata_extents_ = std::move(header.values);
    file_.version_ = header.version;
  }

  GgufFile finish() {
    for (const uint64_t said : said_tensors_) {
      if (said == file_.tensors_.size()) continue;
      fail(file_.paths_[0] + ": metadata 'split.tensors.count' is " + std::to_string(said) +
           ", the file and its shards hold " + std::to_string(file_.tensors_.size()) +
           " tensors; a shard is damaged or of another model");
    }
    for (size_t i = 0; i < file_.tensors_.size(); ++i) {
      const TensorInfo& tensor = file_.tensors_[i];
      const auto [found, is_new] = file_.by_name_.emplace(tensor.name, i);
      if (is_new) continue;
      fail(file_.paths_[tensor.shard] + ": tensor '" + shown(tensor.name) + "' is also in " +
           file_.paths_[file_.tensors_[found->second].shard]);
    }
    return std::move(file_);
  }

  GgufFile file_;
  std::vector<uint64_t> said_tensors_;  // by each shard that says it, of the whole model
};

GgufFile GgufFile::open(const std::string& path) {
  return GgufReader().open(path);
}

GgufFile GgufFile::parse(std::span<const std::byte> image, const std::string& name) {
  return GgufReader().parse(image, name);
}

const TensorInfo* GgufFile::find(std::string_view name) const noexcept {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::drop_vocabulary() noexcept {
  metadata_.drop_arrays("tokenizer.");
}

}  // namespace edgemoe
