// What is done with each input of the GGUF fuzzer. The corpus test runs the same function, without
// libFuzzer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "gguf/gguf_file.h"
#include "weights/packed_container.h"

namespace edgemoe::fuzz {

inline void promise(bool kept, const char* what) {
  if (!kept) throw std::logic_error(what);
}

// Runs `get`; a refusal is an answer too.
template <class Get>
void ask(const Get& get) {
  try {
    get();
  } catch (const Error& error) {
    promise(error.code() == ErrorCode::kFormat, "a getter raises kFormat");
  }
}

inline void walk_metadata(const Metadata& metadata) {
  for (const auto& entry : metadata.entries()) {
    const std::string& key = entry.first;
    const MetadataValue& value = entry.second;
    promise(metadata.find(key) == &value, "a key finds its value");
    ask([&] { metadata.get_uint(key, 1000); });
    ask([&] { metadata.get_float(key); });
    ask([&] { metadata.get_bool_or(key, false); });
    ask([&] { metadata.get_string(key); });
    ask([&] { metadata.get_uints(key, 2, 1000); });
    ask([&] { metadata.get_bools(key, 2); });
    if (const auto* strings = std::get_if<StringArray>(&value)) {
      size_t bytes = 0;
      for (size_t i = 0; i < strings->size(); ++i) bytes += (*strings)[i].size();
      promise(bytes == strings->bytes.size(), "strings cover their bytes");
    }
  }
}

inline void walk_tensors(const GgufFile& file, size_t file_bytes) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const TensorInfo& tensor : file.tensors()) {
    promise(file.find(tensor.name) == &tensor, "a name finds its tensor");
    promise(tensor.num_dimensions >= 1 && tensor.num_dimensions <= 4, "1 to 4 dimensions");
    promise(tensor.columns() > 0 && tensor.rows() > 0, "a tensor is not empty");
    promise(tensor.columns() % traits(tensor.type).block_elements == 0, "rows are whole blocks");
    promise(tensor.bytes == row_bytes(tensor.type, tensor.columns()) * tensor.rows(),
            "the size follows from type and shape");
    promise(tensor.bytes <= file_bytes && tensor.offset <= file_bytes - tensor.bytes,
            "a tensor lies inside the file");
    ranges.emplace_back(tensor.offset, tensor.offset + tensor.bytes);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    promise(ranges[i - 1].second <= ranges[i].first, "tensors do not overlap");
  }
}

// What a packed container says, for a model of two layers of two experts. A refusal is an answer.
inline void ask_packed(const GgufFile& file) {
  try {
    const auto container = read_packed_container(file, 2, 2);
    if (!container) return;
    promise(container->expert_checksums.size() == 4, "a checksum for every expert");
    promise(container->dense_checksums.size() <= file.tensors().size(), "none without a tensor");
  } catch (const Error& error) {
    promise(error.code() == ErrorCode::kFormat || error.code() == ErrorCode::kUnsupported,
            "a container is damaged or unsupported, nothing else");
    promise(std::string(error.what()).starts_with("fuzz.gguf: "), "a message names the file");
  }
}

// Parses `image` and, when it opens, walks all that the parser promises. Returns whether it opened;
// a refusal (Error) is no failure. Raises std::logic_error for a broken promise.
inline bool run_gguf(std::span<const std::byte> image) {
  try {
    GgufFile file = GgufFile::parse(image, "fuzz.gguf");
    walk_metadata(file.metadata());
    walk_tensors(file, image.size());
    ask_packed(file);
    file.drop_vocabulary();
    walk_metadata(file.metadata());
    return true;
  } catch (const Error& error) {
    promise(error.code() == ErrorCode::kFormat || error.code() == ErrorCode::kUnsupported,
            "a file is damaged or unsupported, nothing else");
    promise(std::string(error.what()).starts_with("fuzz.gguf: "), "a message names the file");
    return false;
  }
}

}  // namespace edgemoe::fuzz
