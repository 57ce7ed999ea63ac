#include "gguf/header_reader.h"

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "base/units.h"
#include "gguf/value_reader.h"

namespace edgemoe {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxEntries = 65536;
constexpr uint64_t kMaxTensors = 1048576;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 127;
constexpr uint64_t kMaxAlignment = 1u << 20;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr uint64_t kMaxElements = uint64_t{1} << 50;  // keeps row_bytes from overflowing

class HeaderReader {
 public:
  HeaderReader(const ByteSource& source, const std::string& name)
      : source_(source), cursor_(source, name) {}

  GgufHeader run() {
    read_version();
    const uint64_t num_tensors = read_limited("tensor count", kLeastTensorBytes, kMaxTensors);
    const uint64_t num_entries = read_limited("metadata count", kLeastEntryBytes, kMaxEntries);
    header_.metadata.set_source(cursor_.name());
    for (uint64_t i = 0; i < num_entries; ++i) read_entry();
    for (uint64_t i = 0; i < num_tensors; ++i) read_tensor();
    place_tensors();
    return std::move(header_);
  }

 private:
  [[noreturn]] void unsupported(const std::string& field, uint64_t at, const std::string& what) {
    throw Error(ErrorCode::kUnsupported,
                cursor_.name() + ": " + field + " at offset " + std::to_string(at) + ": " + what);
  }

  void read_version() {
    const auto magic = cursor_.read<uint32_t>("magic");
    if (magic != kMagic) cursor_.fail("magic", 0, "this is not a GGUF file");
    const auto version = cursor_.read<uint32_t>("version");
    if (version == 2 || version == 3) {
      header_.version = version;
      return;
    }
    if ((version & 0xFFFF) == 0 && version != 0) {
      unsupported("version", 4, "a big-endian file; convert it to little-endian");
    }
    unsupported("version", 4,
                "GGUF version " + std::to_string(version) + "; versions 2 and 3 are known");
  }

  uint64_t read_limited(const std::string& field, uint64_t least_bytes, uint64_t max) {
    const uint64_t at = cursor_.offset();
    const uint64_t count = cursor_.read_count(least_bytes, field);
    if (count > max) {
      cursor_.fail(field, at, std::to_string(count) + "; at most " + std::to_string(max));
    }
    return count;
  }

  void read_entry() {
    const uint64_t at = cursor_.offset();
    std::string key;
    cursor_.read_string(key, kMaxKeyBytes, "metadata key");
    const bool printable =
        std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7F; });
    if (key.empty() || !printable) {
      cursor_.fail("metadata key", at, "a key is printable ASCII and not empty");
    }
    if (header_.metadata.contains(key)) {
      cursor_.fail("metadata key", at, "'" + key + "' appears twice");
    }
    MetadataValue value = read_metadata_value(cursor_, key);
    header_.metadata.set(std::move(key), std::move(value));
  }

  void read_tensor() {
    const uint64_t at = cursor_.offset();
    TensorInfo tensor;
    cursor_.read_string(tensor.name, kMaxTensorNameBytes, "tensor name");
    const std::string field = "tensor '" + printable(tensor.name) + "'";
    if (tensor.name.empty() || tensor.name.find('\0') != std::string::npos) {
      cursor_.fail(field, at, "a name is not empty and has no NUL");
    }
    if (!names_.insert(tensor.name).second) cursor_.fail(field, at, "the name appears twice");
    read_shape(tensor, field);
    read_type(tensor, field);
    const uint64_t offset_at = cursor_.offset();
    tensor.offset = cursor_.read<uint64_t>(field + ", its offset");
    offset_fields_.push_back(offset_at);
    header_.tensors.push_back(std::move(tensor));
  }

  void read_shape(TensorInfo& tensor, const std::string& field) {
    const uint64_t at = cursor_.offset();
    tensor.num_dimensions = cursor_.read<uint32_t>(field + ", its dimensions");
    if (tensor.num_dimensions < 1 || tensor.num_dimensions > 4) {
      cursor_.fail(field, at,
                   std::to_string(tensor.num_dimensions) + " dimensions; 1 to 4 are possible");
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < tensor.num_dimensions; ++i) {
      const uint64_t size_at = cursor_.offset();
      tensor.shape[i] = cursor_.read<uint64_t>(field + ", its shape");
      if (tensor.shape[i] == 0) cursor_.fail(field, size_at, "a dimension is 0");
      const std::optional<uint64_t> product = checked_multiply(elements, tensor.shape[i]);
      if (!product || *product > kMaxElements) {
        cursor_.fail(field, size_at, "the shape has too many elements");
      }
      elements = *product;
    }
  }

  void read_type(TensorInfo& tensor, const std::string& field) {
    const uint64_t at = cursor_.offset();
    const auto id = cursor_.read<uint32_t>(field + ", its type");
    const std::optional<QuantType> type = quant_type_from_ggml_id(id);
    if (!type) {
      unsupported(field, at,
                  "quantisation type " + std::to_string(id) +
                      " is unknown or was removed from GGUF; use a file of a current type");
    }
    tensor.type = *type;
    const QuantTraits& quant = traits(*type);
    if (tensor.columns() % quant.block_elements != 0) {
      cursor_.fail(field, at,
                   "rows of " + std::to_string(tensor.columns()) + " elements are not whole " +
                       std::string(quant.name) + " blocks of " +
                       std::to_string(quant.block_elements));
    }
    // At most 2^50 elements of at most 4 bytes each: no overflow.
    tensor.bytes = row_bytes(*type, tensor.columns()) * tensor.rows();
  }

  uint64_t read_alignment() const {
    const uint64_t alignment =
        header_.metadata.get_uint_or("general.alignment", kDefaultAlignment, kMaxAlignment);
    if (!is_power_of_two(alignment)) {
      throw Error(ErrorCode::kFormat, cursor_.name() + ": metadata 'general.alignment' is " +
                                          std::to_string(alignment) +
                                          "; it must be a power of two up to 1048576");
    }
    return alignment;
  }

  // Makes offsets absolute; each tensor lies inside the file and over no other.
  void place_tensors() {
    const uint64_t alignment = read_alignment();
    const uint64_t data = align_up(cursor_.offset(), alignment);
    std::vector<size_t> order(header_.tensors.size());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
      place_tensor(i, data, alignment);
    }
    std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
      return header_.tensors[a].offset < header_.tensors[b].offset;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const TensorInfo& before = header_.tensors[order[i - 1]];
      const TensorInfo& after = header_.tensors[order[i]];
      if (before.offset + before.bytes > after.offset) {
        cursor_.fail("tensor '" + printable(after.name) + "', its offset", offset_fields_[order[i]],
                     "it overlaps tensor '" + printable(before.name) + "'");
      }
    }
  }

  void place_tensor(size_t index, uint64_t data, uint64_t alignment) {
    TensorInfo& tensor = header_.tensors[index];
    const std::string field = "tensor '" + printable(tensor.name) + "', its offset";
    if (tensor.offset % alignment != 0) {
      cursor_.fail(field, offset_fields_[index],
                   std::to_string(tensor.offset) + " is not a multiple of the alignment " +
                       std::to_string(alignment));
    }
    const std::optional<uint64_t> begin = checked_add(data, tensor.offset);
    const std::optional<uint64_t> end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
    if (!end || *end > source_.size()) {
      cursor_.fail(field, offset_fields_[index],
                   "its " + std::to_string(tensor.bytes) + " bytes at data offset " +
                       std::to_string(tensor.offset) + " reach past the end of the file (" +
                       std::to_string(source_.size()) +
                       " bytes); the file is truncated or damaged");
    }
    tensor.offset = *begin;
  }

  // Names go into messages of one line.
  static std::string printable(const std::string& name) {
    std::string text;
    for (const char c : name) text += c >= ' ' && c < 0x7F ? c : '?';
    return text;
  }

  const ByteSource& source_;
  ByteCursor cursor_;
  GgufHeader header_;
  std::unordered_set<std::string> names_;
  std::vector<uint64_t> offset_fields_;  // where each tensor's offset is written, for messages
};

}  // namespace

GgufHeader read_gguf_header(const ByteSource& source, const std::string& name) {
  return HeaderReader(source, name).run();
}

}  // namespace edgemoe
