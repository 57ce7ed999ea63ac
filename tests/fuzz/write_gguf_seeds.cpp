// Writes the first inputs of the GGUF fuzzer: small files, each with another part of the format.
// Usage: write_gguf_seeds FOLDER
#include <cstdio>
#include <fstream>
#include <string>

#include "gguf_image.h"

namespace {

using edgemoe::QuantType;
using edgemoe::test::GgufImage;

void write(const std::string& folder, const std::string& name, const GgufImage& image) {
  const std::string bytes = image.build();
  std::ofstream(folder + "/seed_" + name + ".gguf", std::ios::binary) << bytes;
}

GgufImage scalars() {
  GgufImage image;
  image.add("general.architecture", "llama").add("a", uint8_t{1}).add("b", int8_t{-1});
  image.add("c", uint16_t{2}).add("d", int16_t{-2}).add("e", uint32_t{3}).add("f", int32_t{-3});
  image.add("g", 0.5f).add("h", true).add("i", uint64_t{4}).add("j", int64_t{-4}).add("k", 0.25);
  return image;
}

GgufImage arrays() {
  GgufImage image;
  image.add_array<uint8_t>("a", {1, 2}).add_array<int8_t>("b", {-1}).add_array<uint16_t>("c", {3});
  image.add_array<int16_t>("d", {-3}).add_array<uint32_t>("e", {4, 5}).add_array<int32_t>("f", {});
  image.add_array<float>("g", {0.5f}).add_array<bool>("h", {true, false});
  image.add_array<uint64_t>("i", {6}).add_array<int64_t>("j", {-6}).add_array<double>("k", {0.25});
  image.add_array("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "", "a b"});
  return image;
}

GgufImage tensors() {
  GgufImage image;
  image.alignment = 64;
  image.add("general.alignment", uint32_t{64});
  image.add_tensor("token_embd.weight", QuantType::kQ8_0, {32, 2});
  image.add_tensor("blk.0.ffn_gate_exps.weight", QuantType::kQ4_0, {32, 1, 2});
  image.add_tensor("blk.0.ffn_norm.weight", QuantType::kF32, {4});
  image.add_tensor("four", QuantType::kF16, {1, 2, 1, 2});
  return image;
}

GgufImage shard() {
  GgufImage image = tensors();
  image.add("split.no", uint16_t{0}).add("split.count", uint16_t{1});
  image.add("split.tensors.count", int32_t{4});
  return image;
}

// Two experts of two types.
GgufImage packed(uint32_t layout_version, const std::vector<uint64_t>& checksums) {
  GgufImage image;
  image.alignment = 64;
  image.add("general.alignment", uint32_t{64});
  image.add("edgemoe.format.version", uint32_t{1});
  image.add("edgemoe.layout.version", layout_version);
  image.add_array("edgemoe.expert.checksums", checksums);
  image.add_array<uint64_t>("edgemoe.dense.checksums", {5});
  image.add("edgemoe.plan", "{}").add("edgemoe.source", "{}");
  image.add_tensor("blk.0.ffn_norm.weight", QuantType::kF32, {4});
  image.add_tensor("blk.0.ffn_gate.0.weight", QuantType::kQ8_0, {32, 1});
  image.add_tensor("blk.0.ffn_gate.1.weight", QuantType::kQ4_0, {32, 1});
  return image;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_gguf_seeds FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  GgufImage second_version = tensors();
  second_version.version = 2;
  write(folder, "empty", GgufImage{});
  write(folder, "scalars", scalars());
  write(folder, "arrays", arrays());
  write(folder, "tensors", tensors());
  write(folder, "version2", second_version);
  write(folder, "shard", shard());
  write(folder, "packed", packed(1, {1, 2, 3, 4}));
  write(folder, "packed_layout2", packed(2, {1, 2, 3, 4}));
  write(folder, "packed_short", packed(1, {1, 2, 3}));
  GgufImage stock = packed(1, {1, 2, 3, 4});
  stock.add_tensor("blk.0.ffn_up_exps.weight", QuantType::kQ4_0, {32, 1, 2});
  write(folder, "packed_stock", stock);
  return 0;
}
