// Compares a packed container with the checksums that it carries, piece by piece through a buffer
// of fixed size, past the page cache where the system allows it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "gguf/gguf_file.h"
#include "weights/model_tensors.h"
#include "weights/packed_container.h"

namespace edgemoe {

// An expert, its low copy, or a dense tensor, whose bytes are not those that were packed.
struct DamagedPart {
  std::string path;
  std::string tensor;  // name of the dense tensor; empty for an expert
  uint32_t layer = 0;
  uint32_t expert = 0;
  bool low_copy = false;  // of that expert
};
// One line: file, what is damaged, what to do.
std::string describe(const DamagedPart& part);

struct ChecksumReport {
  uint64_t num_experts = 0;
  uint64_t num_low_copies = 0;
  uint64_t num_dense_tensors = 0;
  uint64_t bytes = 0;
  uint64_t num_damaged = 0;
  std::optional<DamagedPart> first_damaged;
};

// Told how many bytes were read since the last call; true stops.
using ChecksumProgress = std::function<bool(uint64_t bytes)>;

// What is read: dense tensors alone, as loading does, or everything.
enum class ChecksumScope : uint8_t { kDense, kAll };
uint64_t checksum_bytes(const GgufFile& file, const ModelTensors& tensors, ChecksumScope scope);

// Errors: kIo, kCancelled. Damage is no error here.
ChecksumReport verify_checksums(const GgufFile& file, const ModelTensors& tensors,
                                const PackedContainer& container, ChecksumScope scope,
                                const ChecksumProgress& progress);

}  // namespace edgemoe
