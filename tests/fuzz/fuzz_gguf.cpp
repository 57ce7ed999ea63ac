// libFuzzer target of the GGUF reader. See docs/fuzzing.md.
#include <cstddef>
#include <cstdint>

#include "gguf_entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  edgemoe::fuzz::run_gguf(std::as_bytes(std::span(data, size)));
  return 0;
}
