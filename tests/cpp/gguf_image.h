// Writes GGUF files into memory for tests: good ones, and every kind of broken one, because all
// fields can be set to what a damaged or hostile file would say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "quant/quant_type.h"

namespace edgemoe::test {

// The numbers of value types in a file.
enum class GgufValue : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

template <class T>
constexpr GgufValue gguf_value_type() {
  if constexpr (std::is_same_v<T, bool>) return GgufValue::kBool;
  if constexpr (std::is_same_v<T, float>) return GgufValue::kFloat32;
  if constexpr (std::is_same_v<T, double>) return GgufValue::kFloat64;
  constexpr GgufValue kUnsigned[] = {GgufValue::kUint8, GgufValue::kUint16, GgufValue::kUint32,
                                     GgufValue::kUint64};
  constexpr GgufValue kSigned[] = {GgufValue::kInt8, GgufValue::kInt16, GgufValue::kInt32,
                                   GgufValue::kInt64};
  constexpr size_t kIndex = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  return std::is_signed_v<T> ? kSigned[kIndex] : kUnsigned[kIndex];
}

// The bytes of a value as a file holds them (tests run on little-endian machines).
template <class T>
  requires std::is_arithmetic_v<T>
std::string gguf_bytes(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
inline std::string gguf_bytes(std::string_view text) {
  return gguf_bytes(uint64_t{text.size()}) + std::string(text);
}
// An array as a file holds it; `length` may lie.
inline std::string gguf_array_bytes(GgufValue element_type, uint64_t length,
                                    std::string_view elements) {
  return gguf_bytes(static_cast<uint32_t>(element_type)) + gguf_bytes(length) +
         std::string(elements);
}

class GgufImage {
 public:
  struct Entry {
    std::string key;
    uint32_t type = 0;
    std::string value;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;
    uint32_t type = 0;  // the ggml id
    std::string data;
    std::optional<uint64_t> offset = {};  // empty: where the data lies
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data; add("general.alignment", ...) tells the reader
  std::optional<uint64_t> num_tensors = {};  // what the header says; empty: the truth
  std::optional<uint64_t> num_entries = {};
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;

  template <class T>
    requires std::is_arithmetic_v<T>
  GgufImage& add(std::string key, T value) {
    return add_entry(std::move(key), gguf_value_type<T>(), gguf_bytes(value));
  }
  GgufImage& add(std::string key, std::string_view text) {
    return add_entry(std::move(key), GgufValue::kString, gguf_bytes(text));
  }
  GgufImage& add(std::string key, const char* text) {
    return add(std::move(key), std::string_view(text));
  }
  template <class T>
  GgufImage& add_array(std::string key, const std::vector<T>& values) {
    std::string elements;
    for (const T value : values) elements += gguf_bytes(value);
    return add_entry(std::move(key), GgufValue::kArray,
                     gguf_array_bytes(gguf_value_type<T>(), values.size(), elements));
  }
  GgufImage& add_array(std::string key, const std::vector<std::string>& values) {
    std::string elements;
    for (const std::string& value : values) elements += gguf_bytes(value);
    return add_entry(std::move(key), GgufValue::kArray,
                     gguf_array_bytes(GgufValue::kString, values.size(), elements));
  }
  // Any bytes as a value of any type.
  GgufImage& add_entry(std::string key, GgufValue type, std::string value) {
    entries.push_back({std::move(key), static_cast<uint32_t>(type), std::move(value)});
    return *this;
  }

  // `data` empty: zeros of the size that type and shape ask for.
  GgufImage& add_tensor(std::string name, QuantType type, std::vector<uint64_t> shape,
                        std::string data = {}) {
    uint64_t rows = 1;
    for (size_t i = 1; i < shape.size(); ++i) rows *= shape[i];
    if (data.empty()) data.assign(row_bytes(type, shape.at(0)) * rows, '\0');
    tensors.push_back({std::move(name), std::move(shape), traits(type).ggml_id, std::move(data)});
    return *this;
  }

  std::string header() const {
    std::string out = magic + gguf_bytes(version) +
                      gguf_bytes(num_tensors.value_or(tensors.size())) +
                      gguf_bytes(num_entries.value_or(entries.size()));
    for (const Entry& entry : entries) {
      out += gguf_bytes(entry.key) + gguf_bytes(entry.type) + entry.value;
    }
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors) {
      out += gguf_bytes(tensor.name) + gguf_bytes(static_cast<uint32_t>(tensor.shape.size()));
      for (const uint64_t size : tensor.shape) out += gguf_bytes(size);
      out += gguf_bytes(tensor.type) + gguf_bytes(tensor.offset.value_or(offset));
      offset += padded(tensor.data.size());
    }
    return out;
  }

  // The whole file. Data lies in the order of `tensors`, each padded to the alignment.
  std::string build() const {
    std::string out = header();
    for (const Tensor& tensor : tensors) {
      out.resize(padded(out.size()), '\0');
      out += tensor.data;
    }
    return out;
  }

 private:
  size_t padded(size_t size) const { return (size + alignment - 1) / alignment * alignment; }
};

inline std::span<const std::byte> bytes_of(const std::string& image) {
  return std::as_bytes(std::span(image));
}

}  // namespace edgemoe::test
