#include "gguf/header_reader.h"

#include <algorithm>

#include "base/units.h"
#include "gguf/tensor_directory.h"
#include "gguf/value_reader.h"

namespace edgemoe {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kMaxEntries = 65536;
constexpr uint64_t kMaxTensors = 1u << 18;  // the largest models with one tensor per expert: 70 000
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 1u << 20;

class HeaderReader {
 public:
  HeaderReader(const ByteSource& source, const std::string& name)
      : cursor_(source, name), values_(cursor_), file_bytes_(source.size()) {}

  GgufHeader run() {
    read_version();
    const uint64_t num_tensors =
        cursor_.read_count(kLeastTensorBytes, kMaxTensors, {"number of tensors"});
    const uint64_t num_entries =
        cursor_.read_count(kLeastEntryBytes, kMaxEntries, {"number of metadata entries"});
    header_.metadata.set_source(cursor_.name());
    for (uint64_t i = 0; i < num_entries; ++i) read_entry();
    TensorDirectory directory(cursor_);
    for (uint64_t i = 0; i < num_tensors; ++i) directory.read_tensor();
    const uint64_t data_begin = align_up(cursor_.offset(), alignment_);
    header_.tensors = directory.place(data_begin, alignment_, file_bytes_);
    return std::move(header_);
  }

 private:
  void read_version() {
    std::string magic(kMagic.size(), '\0');
    cursor_.read_bytes(std::as_writable_bytes(std::span(magic)), {"magic"});
    if (magic != kMagic) {
      cursor_.fail({"magic"}, 0, "'" + shown(magic) + "' is not 'GGUF'; this is no GGUF file");
    }
    const uint64_t at = cursor_.offset();
    header_.version = cursor_.read<uint32_t>({"version"});
    if (header_.version == 2 || header_.version == 3) return;
    const bool is_swapped = header_.version != 0 && (header_.version & 0xFFFF) == 0;
    const std::string what = is_swapped ? std::string("the file is big-endian")
                                        : "GGUF version " + std::to_string(header_.version);
    cursor_.fail(ErrorCode::kUnsupported, {"version"}, at,
                 what +
                     "; little-endian files of versions 2 and 3 are supported, "
                     "convert the model with a current tool");
  }

  void read_entry() {
    const uint64_t at = cursor_.offset();
    std::string key;
    cursor_.read_string(key, kMaxKeyBytes, {"metadata key"});
    const bool is_printable =
        std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < 0x7F; });
    if (key.empty() || !is_printable) {
      cursor_.fail({"metadata key"}, at,
                   "'" + shown(key) + "'; a key is printable ASCII, without spaces, not empty");
    }
    if (header_.metadata.contains(key)) {
      cursor_.fail({"metadata key"}, at, "'" + shown(key) + "' appears twice");
    }
    const uint64_t value_at = cursor_.offset();
    MetadataValue value = values_.read(key);
    header_.values.push_back({value_at, cursor_.offset() - value_at});
    if (key == kAlignmentKey) set_alignment(value, value_at);
    header_.metadata.set(std::move(key), std::move(value));
  }

  void set_alignment(const MetadataValue& value, uint64_t at) {
    const auto* alignment = std::get_if<uint64_t>(&value);
    if (alignment == nullptr || !is_power_of_two(*alignment) || *alignment < kMinAlignment ||
        *alignment > kMaxAlignment) {
      const std::string found = alignment ? std::to_string(*alignment) : "not an unsigned number";
      cursor_.fail({"metadata", kAlignmentKey, "value"}, at,
                   found + "; an alignment is a power of two from 8 to 1048576");
    }
    alignment_ = *alignment;
  }

  ByteCursor cursor_;
  ValueReader values_;
  uint64_t file_bytes_;
  uint64_t alignment_ = kDefaultAlignment;
  GgufHeader header_;
};

}  // namespace

GgufHeader read_gguf_header(const ByteSource& source, const std::string& name) {
  return HeaderReader(source, name).run();
}

}  // namespace edgemoe
