// Parses and validates the tensor directory of one GGUF file.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "gguf/byte_cursor.h"
#include "gguf/gguf_file.h"

namespace edgemoe {

// Bytes that a tensor of one dimension and a name of one byte takes.
inline constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

class TensorDirectory {
 public:
  explicit TensorDirectory(ByteCursor& cursor) : cursor_(cursor) {}

  // Reads one entry. Errors: kFormat for a bad or repeated name, shape or block count, kUnsupported
  // for a type that no weights are stored in.
  void read_tensor();
  // Makes the offsets absolute. `data_begin` is where tensor data starts, `file_bytes` where the
  // file ends. Errors: kFormat for a tensor that is unaligned, outside the file or over another.
  std::vector<TensorInfo> place(uint64_t data_begin, uint64_t alignment, uint64_t file_bytes);

 private:
  void read_shape(TensorInfo& tensor);
  void read_type(TensorInfo& tensor);
  void place_tensor(size_t index, uint64_t data_begin, uint64_t file_bytes);
  void check_overlaps() const;

  ByteCursor& cursor_;
  std::vector<TensorInfo> tensors_;
  std::vector<uint64_t> offset_fields_;  // where each tensor's offset is written, for messages
  std::set<std::string> names_;          // ordered: chosen names can flood a hash table
};

}  // namespace edgemoe
