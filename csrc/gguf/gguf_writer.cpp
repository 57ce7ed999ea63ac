#include "gguf/gguf_writer.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

constexpr uint64_t kDefaultAlignment = 32;
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;

// The numbers that stand for value types in a file.
constexpr uint32_t kUint16 = 2;
constexpr uint32_t kUint32 = 4;
constexpr uint32_t kInt32 = 5;
constexpr uint32_t kFloat32 = 6;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;
constexpr uint32_t kUint64 = 10;

// Numbers are appended as they lie in memory: little-endian machines only, as the reader.
template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void append_text(std::string& out, std::string_view text) {
  append(out, uint64_t{text.size()});
  out.append(text);
}

template <class T>
std::string scalar(uint32_t type, T value) {
  std::string out;
  append(out, type);
  append(out, value);
  return out;
}

std::string array_head(uint32_t type, size_t count) {
  std::string out;
  append(out, kArray);
  append(out, type);
  append(out, uint64_t{count});
  return out;
}

template <class T>
std::string array(uint32_t type, std::span<const T> numbers) {
  std::string out = array_head(type, numbers.size());
  for (const T number : numbers) append(out, number);
  return out;
}

}  // namespace

std::string gguf_value(uint16_t value) {
  return scalar(kUint16, value);
}
std::string gguf_value(uint32_t value) {
  return scalar(kUint32, value);
}
std::string gguf_value(int32_t value) {
  return scalar(kInt32, value);
}
std::string gguf_value(std::string_view text) {
  std::string out;
  append(out, kString);
  append_text(out, text);
  return out;
}
std::string gguf_value(std::span<const uint64_t> numbers) {
  return array(kUint64, numbers);
}
std::string gguf_value(std::span<const float> numbers) {
  return array(kFloat32, numbers);
}
std::string gguf_value(std::span<const std::string> texts) {
  std::string out = array_head(kString, texts.size());
  for (const std::string& text : texts) append_text(out, text);
  return out;
}

GgufWriter::GgufWriter(uint64_t alignment)
    : alignment_(alignment),
      header_bytes_(kMagic.size() + sizeof(kVersion) + 2 * sizeof(uint64_t)) {
  EM_CHECK(is_power_of_two(alignment) && alignment >= 8);
  if (alignment != kDefaultAlignment) {
    set(kAlignmentKey, gguf_value(static_cast<uint32_t>(alignment)));
  }
}

void GgufWriter::set(std::string_view key, std::string value) {
  header_bytes_ += value.size();
  if (const auto found = index_.find(key); found != index_.end()) {
    std::string& old = entries_[found->second].second;
    header_bytes_ -= old.size();
    old = std::move(value);
    return;
  }
  header_bytes_ += sizeof(uint64_t) + key.size();
  index_.emplace(key, entries_.size());
  entries_.emplace_back(key, std::move(value));
}

void GgufWriter::add_tensor(std::string name, QuantType type, std::span<const uint64_t> shape) {
  EM_CHECK(!shape.empty() && shape.size() <= 4);
  EM_CHECK(shape[0] % traits(type).block_elements == 0);
  Tensor tensor;
  tensor.name = std::move(name);
  tensor.type = type;
  tensor.num_dimensions = static_cast<uint32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), tensor.shape.begin());
  tensor.bytes = row_bytes(type, shape[0]);
  for (const uint64_t size : shape.subspan(1)) tensor.bytes *= size;
  tensor.offset = data_bytes_;
  data_bytes_ = align_up(data_bytes_ + tensor.bytes, alignment_);
  header_bytes_ += sizeof(uint64_t) + tensor.name.size();
  header_bytes_ += sizeof(uint32_t) + shape.size() * sizeof(uint64_t);
  header_bytes_ += sizeof(uint32_t) + sizeof(uint64_t);  // type, offset
  tensors_.push_back(std::move(tensor));
}

uint64_t GgufWriter::data_begin() const noexcept {
  return align_up(header_bytes_, alignment_);
}

std::vector<std::byte> GgufWriter::header() const {
  std::string out;
  out.reserve(data_begin());
  out.append(kMagic);
  append(out, kVersion);
  append(out, uint64_t{tensors_.size()});
  append(out, uint64_t{entries_.size()});
  for (const auto& [key, value] : entries_) {
    append_text(out, key);
    out.append(value);
  }
  for (const Tensor& tensor : tensors_) {
    append_text(out, tensor.name);
    append(out, tensor.num_dimensions);
    for (uint32_t i = 0; i < tensor.num_dimensions; ++i) append(out, tensor.shape[i]);
    append(out, traits(tensor.type).ggml_id);
    append(out, tensor.offset);
  }
  EM_CHECK(out.size() == header_bytes_);
  std::vector<std::byte> bytes(data_begin());
  std::memcpy(bytes.data(), out.data(), out.size());
  return bytes;
}

}  // namespace edgemoe
