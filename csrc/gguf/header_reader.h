// Parses the header of one GGUF file (one shard): version, metadata, tensor directory.
#pragma once

#include <string>
#include <vector>

#include "gguf/byte_cursor.h"
#include "gguf/gguf_file.h"

namespace edgemoe {

struct GgufHeader {
  uint32_t version = 0;
  Metadata metadata;
  std::vector<FileExtent> values;   // where each metadata value lies, its type included
  std::vector<TensorInfo> tensors;  // offsets are absolute; `shard` is 0
};

// Validates everything that one file says about itself: types, counts, names, shapes, that tensors
// lie inside the file, aligned and without overlap.
// Errors: kFormat and kUnsupported as GgufFile::open.
GgufHeader read_gguf_header(const ByteSource& source, const std::string& name);

}  // namespace edgemoe
