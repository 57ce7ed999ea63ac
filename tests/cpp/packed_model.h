// The tiny model as a packed container: experts one by one, each of its own types.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "base/fast_hash.h"
#include "tiny_model.h"

namespace edgemoe::test {

// Writes the checksums that fit the tensors.
inline void add_checksums(GgufImage& image) {
  std::vector<uint64_t> dense;
  std::vector<FastHash> experts(kTinyLayers * kTinyExperts);
  size_t num_expert_tensors = 0;
  for (const GgufImage::Tensor& tensor : image.tensors) {
    const std::span<const std::byte> data = bytes_of(tensor.data);
    // "blk.N.ffn_gate.E.weight"
    const bool of_expert = std::count(tensor.name.begin(), tensor.name.end(), '.') == 4;
    if (of_expert) {
      experts[num_expert_tensors++ / 3].add(data);
    } else {
      dense.push_back(fast_hash(data));
    }
  }
  std::vector<uint64_t> sums;
  for (const FastHash& one : experts) sums.push_back(one.value());
  image.add_array("edgemoe.expert.checksums", sums);
  image.add_array("edgemoe.dense.checksums", dense);
}

// All weights are 0, so the layouts of all types are the same bytes.
inline GgufImage packed_model() {
  GgufImage image = tiny_model();
  image.alignment = 4096;
  image.add("general.alignment", uint32_t{4096});
  std::erase_if(image.tensors, [](const GgufImage::Tensor& tensor) {
    return tensor.name.find("_exps.weight") != std::string::npos;
  });
  const QuantType types[] = {QuantType::kQ8_0, QuantType::kQ4_0, QuantType::kF16};
  for (uint32_t layer = 0; layer < kTinyLayers; ++layer) {
    for (uint32_t expert = 0; expert < kTinyExperts; ++expert) {
      const auto add = [&](const std::string& matrix, uint32_t which, uint64_t columns,
                           uint64_t rows) {
        image.add_tensor("blk." + std::to_string(layer) + ".ffn_" + matrix + "." +
                             std::to_string(expert) + ".weight",
                         types[(layer + expert + which) % 3], {columns, rows});
      };
      add("gate", 0, kTinyWidth, kTinyHidden);
      add("up", 1, kTinyWidth, kTinyHidden);
      add("down", 2, kTinyHidden, kTinyWidth);
    }
  }
  image.add("edgemoe.format.version", uint32_t{1}).add("edgemoe.layout.version", uint32_t{1});
  image.add("edgemoe.plan", "{\"method\": \"allocate\"}");
  add_checksums(image);
  return image;
}

// With a low copy of every expert but the last of each layer.
inline GgufImage low_copy_model() {
  GgufImage image = packed_model();
  std::vector<uint64_t> sums;
  for (uint32_t layer = 0; layer < kTinyLayers; ++layer) {
    for (uint32_t expert = 0; expert + 1 < kTinyExperts; ++expert) {
      const std::string stem = "blk." + std::to_string(layer) + ".ffn_";
      const std::string end = "." + std::to_string(expert) + ".low.weight";
      FastHash hash;
      for (const auto& [matrix, columns, rows] : {std::tuple{"gate", kTinyWidth, kTinyHidden},
                                                  {"up", kTinyWidth, kTinyHidden},
                                                  {"down", kTinyHidden, kTinyWidth}}) {
        image.add_tensor(stem + matrix + end, QuantType::kQ4_0, {columns, rows});
        hash.add(bytes_of(image.tensors.back().data));
      }
      sums.push_back(hash.value());
    }
    sums.push_back(0);
  }
  image.add("edgemoe.low.version", uint32_t{1}).add_array("edgemoe.low.checksums", sums);
  return image;
}

}  // namespace edgemoe::test
