// Parses metadata values.
#pragma once

#include <cstdint>
#include <string_view>

#include "gguf/byte_cursor.h"
#include "gguf/metadata.h"

namespace edgemoe {

// Bytes that a key, a type and the smallest value take.
inline constexpr uint64_t kLeastEntryBytes = 8 + 4 + 1;

// One reader for all values of a file: it also bounds what their arrays take together, because
// small integers grow when they are widened.
class ValueReader {
 public:
  explicit ValueReader(ByteCursor& cursor) : cursor_(cursor) {}

  // Reads the value's type and the value. `key` is used in messages.
  // Errors: kFormat for an unknown type, a bool that is neither 0 nor 1, or a length that the file
  // cannot hold; kUnsupported for an array of arrays.
  MetadataValue read(std::string_view key);

 private:
  MetadataValue read_array(std::string_view key);

  ByteCursor& cursor_;
  uint64_t elements_left_ = uint64_t{1} << 24;  // the largest vocabularies need a tenth
};

}  // namespace edgemoe
