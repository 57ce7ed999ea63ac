// The files that packing writes: their names, headers and which units lie in which.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bitwidth/packed_tensors.h"
#include "gguf/gguf_writer.h"

namespace edgemoe {

struct OutputShard {
  GgufWriter header;
  std::string path;  // when it is finished
  size_t first_unit = 0;
  size_t num_units = 0;
  size_t first_tensor = 0;

  explicit OutputShard(uint64_t alignment) : header(alignment) {}
  std::string part_path() const { return path + ".part"; }
  // Where the tensor lies in the file. Requires: it is one of this shard's.
  uint64_t offset(size_t tensor) const noexcept {
    return header.data_begin() + header.offset(tensor - first_tensor);
  }
};

// What is known when all units are done.
struct PackSums {
  std::vector<uint64_t> expert_checksums;  // [num_layers * num_experts]
  std::vector<uint64_t> low_checksums;     // likewise; empty: no low copies
  std::vector<uint64_t> dense_checksums;
  std::vector<PackLoss> losses;
};

// Sums of the right sizes with nothing in them.
PackSums empty_sums(const PackSource& source, const PackedTensors& packed);

// Headers of the size that they will have, with empty sums. Reads the metadata of the source.
// Errors: kIo; kArgument for a shard size that a unit does not fit in.
std::vector<OutputShard> output_shards(const PackSource& source, const PackRequest& request,
                                       const PackedTensors& packed);

// Puts the sums into the header of the first shard, whose size stays the same.
void set_sums(OutputShard& first, const PackSums& sums);

}  // namespace edgemoe
