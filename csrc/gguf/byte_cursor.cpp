#include "gguf/byte_cursor.h"

#include <algorithm>
#include <cstring>

namespace edgemoe {
namespace {

constexpr uint64_t kWindowBytes = 256 * 1024;
// Bounds time and memory for files of any size; 150 000 tokens with merges take 10 MB.
constexpr uint64_t kMaxHeaderBytes = 256u << 20;
constexpr size_t kMaxShownBytes = 128;

}  // namespace

std::string shown(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, kMaxShownBytes)) text += c >= ' ' && c < 0x7F ? c : '?';
  if (name.size() > kMaxShownBytes) text += "...";
  return text;
}

ByteCursor::ByteCursor(const ByteSource& source, const std::string& name)
    : source_(source), name_(name) {}

void ByteCursor::fail(ErrorCode code, const Field& field, uint64_t at,
                      const std::string& what) const {
  std::string where(field.kind);
  if (!field.name.empty()) where += " '" + shown(field.name) + "'";
  if (!field.part.empty()) where += ", its " + std::string(field.part);
  throw Error(code, name_ + ": " + where + " at offset " + std::to_string(at) + ": " + what);
}

void ByteCursor::read_bytes(std::span<std::byte> out, const Field& field) {
  if (out.size() > remaining()) {
    fail(field, offset_,
         "the file ends after " + std::to_string(source_.size()) +
             " bytes; it is truncated or damaged, fetch it again");
  }
  if (offset_ + out.size() > kMaxHeaderBytes) {
    fail(field, offset_, "the header is larger than " + std::to_string(kMaxHeaderBytes) + " bytes");
  }
  while (!out.empty()) {
    if (offset_ >= window_begin_ + window_.size()) {
      window_.resize(std::min(kWindowBytes, remaining()));
      window_begin_ = offset_;
      source_.read(offset_, window_);
    }
    const size_t at = offset_ - window_begin_;
    const size_t count = std::min(out.size(), window_.size() - at);
    std::memcpy(out.data(), window_.data() + at, count);
    out = out.subspan(count);
    offset_ += count;
  }
}

void ByteCursor::read_string(std::string& out, uint64_t max_length, const Field& field) {
  const uint64_t at = offset_;
  const auto length = read<uint64_t>(field);
  if (length > std::min(max_length, remaining())) {
    fail(field, at,
         "a string of " + std::to_string(length) + " bytes; at most " +
             std::to_string(std::min(max_length, remaining())) + " are possible here");
  }
  const size_t begin = out.size();
  out.resize(begin + length);
  read_bytes(std::as_writable_bytes(std::span(out).subspan(begin)), field);
}

uint64_t ByteCursor::read_count(uint64_t least_bytes, uint64_t max, const Field& field) {
  const uint64_t at = offset_;
  const auto count = read<uint64_t>(field);
  const uint64_t room = remaining() / least_bytes;
  if (count > room) {
    fail(field, at,
         std::to_string(count) + "; the rest of the file holds at most " + std::to_string(room));
  }
  if (count > max) fail(field, at, std::to_string(count) + "; at most " + std::to_string(max));
  return count;
}

}  // namespace edgemoe
