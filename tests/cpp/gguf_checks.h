// Checks that a GGUF image is refused with a message that says where and what.
#pragma once

#include <initializer_list>
#include <string>

#include "gguf/gguf_file.h"
#include "gguf_image.h"
#include "test.h"

namespace edgemoe::test {

inline std::string at_offset(size_t offset) {
  return "at offset " + std::to_string(offset) + ":";
}

inline void check_mentions(const std::string& message, std::initializer_list<std::string> parts,
                           const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  for (const std::string& part : parts) {
    if (message.find(part) != std::string::npos) continue;
    report_failure(file, line, "'" + message + "' does not mention '" + part + "'");
  }
}

// Opening `image` as "model.gguf" raises an error of that code whose message names the file and
// holds all `parts`.
inline void check_refused(const std::string& image, ErrorCode code,
                          std::initializer_list<std::string> parts,
                          const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const std::string message =
      error_message(code, [&] { GgufFile::parse(bytes_of(image), "model.gguf"); }, file, line);
  check_mentions(message, {"model.gguf: "}, file, line);
  check_mentions(message, parts, file, line);
}
inline void check_refused(const GgufImage& image, ErrorCode code,
                          std::initializer_list<std::string> parts,
                          const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  check_refused(image.build(), code, parts, file, line);
}

inline GgufFile parse(const GgufImage& image) {
  const std::string bytes = image.build();
  return GgufFile::parse(bytes_of(bytes), "model.gguf");
}

}  // namespace edgemoe::test
