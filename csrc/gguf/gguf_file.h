// Opens a GGUF model: parses and validates header, metadata and tensor directory of every shard.
// No tensor data is read. Everything in a file is untrusted; nothing is reserved before its bytes
// were seen, and time is linear in the size of the header.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/metadata.h"
#include "quant/quant_type.h"

namespace edgemoe {

struct TensorInfo {
  std::string name;
  QuantType type = QuantType::kF32;
  uint32_t num_dimensions = 0;                   // 1..4
  std::array<uint64_t, 4> shape = {1, 1, 1, 1};  // shape[0] is the contiguous one (columns)
  uint32_t shard = 0;                            // index into GgufFile::paths()
  uint64_t offset = 0;                           // absolute, in the shard's file
  uint64_t bytes = 0;

  uint64_t columns() const noexcept { return shape[0]; }
  uint64_t rows() const noexcept { return shape[1] * shape[2] * shape[3]; }
};

struct FileExtent {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

class GgufFile {
 public:
  // `path` names the file, or any shard NAME-0000I-of-0000N.gguf; the other shards are found by
  // name in the same folder. Errors, with file, field and offset: kIo (cannot be read), kFormat
  // (damaged), kUnsupported (version, byte order, tensor type or nested array not known here).
  static GgufFile open(const std::string& path);
  // Parses one whole file image in memory (fuzzing, tests). `name` is used in messages.
  static GgufFile parse(std::span<const std::byte> image, const std::string& name);
  // Moved, never copied: the index below borrows the names.
  GgufFile(GgufFile&&) noexcept = default;
  GgufFile& operator=(GgufFile&&) noexcept = default;

  const Metadata& metadata() const noexcept { return metadata_; }  // of the first shard
  // Where the value of each entry of metadata() lies in the first shard, its type included: what a
  // copy takes over unchanged.
  std::span<const FileExtent> metadata_extents() const noexcept { return metadata_extents_; }
  std::span<const TensorInfo> tensors() const noexcept { return tensors_; }
  // Null when there is none.
  const TensorInfo* find(std::string_view name) const noexcept;
  std::span<const std::string> paths() const noexcept { return paths_; }
  uint64_t file_bytes() const noexcept { return file_bytes_; }  // all shards
  uint32_t version() const noexcept { return version_; }

  // Frees the vocabulary (arrays of strings, scores, types) once the tokenizer is built. Their keys
  // stay, with empty arrays.
  void drop_vocabulary() noexcept;

 private:
  friend class GgufReader;
  GgufFile() = default;

  Metadata metadata_;
  std::vector<FileExtent> metadata_extents_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string_view, size_t> by_name_;  // views of tensors_[i].name
  std::vector<std::string> paths_;
  uint64_t file_bytes_ = 0;
  uint32_t version_ = 3;
};

}  // namespace edgemoe
