// Builds the header of a GGUF file (version 3, little-endian). All offsets are known before any
// data is written, and values of a fixed size may be set again later without moving anything.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/quant_type.h"

namespace edgemoe {

// A metadata value as a file holds it: its type, then its bytes.
std::string gguf_value(uint16_t value);
std::string gguf_value(uint32_t value);
std::string gguf_value(int32_t value);
std::string gguf_value(std::string_view text);
std::string gguf_value(std::span<const uint64_t> numbers);
std::string gguf_value(std::span<const float> numbers);
std::string gguf_value(std::span<const std::string> texts);

class GgufWriter {
 public:
  // Sets `general.alignment` unless it is the default of 32. Requires: a power of two from 8 on.
  explicit GgufWriter(uint64_t alignment);

  // Appends an entry, or replaces the value of the entry of that key where it stands.
  void set(std::string_view key, std::string value);
  // Requires: 1 to 4 dimensions, the first a multiple of the type's block.
  void add_tensor(std::string name, QuantType type, std::span<const uint64_t> shape);

  size_t num_tensors() const noexcept { return tensors_.size(); }
  // Where the first tensor's data starts: the header's bytes, padded.
  uint64_t data_begin() const noexcept;
  // Of a tensor's data, from data_begin() on; data follow each other in the order of adding.
  uint64_t offset(size_t tensor) const noexcept { return tensors_[tensor].offset; }
  uint64_t bytes(size_t tensor) const noexcept { return tensors_[tensor].bytes; }
  // Of all tensors with their padding; data_begin() + data_bytes() is the size of the file.
  uint64_t data_bytes() const noexcept { return data_bytes_; }
  uint64_t file_bytes() const noexcept { return data_begin() + data_bytes_; }
  // data_begin() bytes that a file starts with.
  std::vector<std::byte> header() const;

 private:
  struct Tensor {
    std::string name;
    QuantType type = QuantType::kF32;
    uint32_t num_dimensions = 0;
    std::array<uint64_t, 4> shape = {};
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };

  uint64_t alignment_;
  uint64_t header_bytes_;
  uint64_t data_bytes_ = 0;
  std::vector<std::pair<std::string, std::string>> entries_;
  std::map<std::string, size_t, std::less<>> index_;  // of the keys
  std::vector<Tensor> tensors_;
};

}  // namespace edgemoe
