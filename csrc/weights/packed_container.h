// What a packed container (`edgemoe pack`, docs/format.md) says of itself in its metadata.
//
// A container is a GGUF file whose experts are separate tensors, each with its own type, in the
// in-memory layout of quant/layout.h. Any other tensor is dense: it is as in any GGUF file, and so
// are those of blocks that take no part in generation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"

namespace edgemoe {

inline constexpr uint32_t kContainerFormat = 1;  // edgemoe.format.version
inline constexpr uint32_t kContainerLayout = 1;  // edgemoe.layout.version
inline constexpr uint32_t kLowCopyVersion = 1;   // edgemoe.low.version

struct PackedContainer {
  // fast_hash of each expert's matrices, in the order gate, up, down, without what lies between
  // them; [num_layers * num_experts] by layer, then expert; 0 for dense layers.
  std::vector<uint64_t> expert_checksums;
  // Likewise of each expert's low copy; 0 where it has none, empty for a file without them.
  std::vector<uint64_t> low_checksums;
  // fast_hash of each dense tensor, in the order of GgufFile::tensors().
  std::vector<uint64_t> dense_checksums;
  std::string plan;    // JSON; empty when the file does not say
  std::string source;  // JSON; empty when the file does not say
};

// Whether the tensor holds weights of experts of the first `num_layers` blocks, or of low copies.
bool holds_experts(const TensorInfo& tensor, uint32_t num_layers);

// Empty for a stock file. Errors: kUnsupported for a version that is not known here; kFormat for
// checksums of another type or number than the tensors ask for, experts that share a tensor, or low
// copies that the metadata do not name.
std::optional<PackedContainer> read_packed_container(const GgufFile& file, uint32_t num_layers,
                                                     uint32_t num_experts);

}  // namespace edgemoe
