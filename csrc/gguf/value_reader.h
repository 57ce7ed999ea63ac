// Parses one metadata value.
#pragma once

#include <cstdint>
#include <string>

#include "gguf/byte_cursor.h"
#include "gguf/metadata.h"

namespace edgemoe {

// Bytes that a key, a type and the smallest value take.
inline constexpr uint64_t kLeastEntryBytes = 8 + 4 + 1;
inline constexpr uint64_t kMaxStringBytes = 16u << 20;

// Reads the value's type and the value. `key` is used in messages.
// Errors: kFormat for an unknown type, a nested array, a bool that is neither 0 nor 1, or a length
// that the file cannot hold.
MetadataValue read_metadata_value(ByteCursor& cursor, const std::string& key);

}  // namespace edgemoe
