#include "gguf/byte_cursor.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace edgemoe {
namespace {

constexpr uint64_t kWindowBytes = 256 * 1024;
// Ten times the largest header that is known; what lies beyond it is not one.
constexpr uint64_t kMaxHeaderBytes = 512u << 20;

}  // namespace

ByteCursor::ByteCursor(const ByteSource& source, const std::string& name)
    : source_(source), name_(name) {}

void ByteCursor::fail(const std::string& field, uint64_t at, const std::string& what) const {
  throw Error(ErrorCode::kFormat,
              name_ + ": " + field + " at offset " + std::to_string(at) + ": " + what);
}

void ByteCursor::read_bytes(std::span<std::byte> out, const std::string& field) {
  if (out.size() > remaining()) {
    fail(field, offset_,
         "the file ends after " + std::to_string(source_.size()) +
             " bytes; it is truncated or damaged");
  }
  if (offset_ + out.size() > kMaxHeaderBytes) {
    fail(field, offset_, "the header is larger than " + std::to_string(kMaxHeaderBytes) + " bytes");
  }
  while (!out.empty()) {
    const bool inside = offset_ >= window_begin_ && offset_ < window_begin_ + window_.size();
    if (!inside) {
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

void ByteCursor::read_string(std::string& out, uint64_t max_length, const std::string& field) {
  const uint64_t at = offset_;
  const auto length = read<uint64_t>(field + ", its length");
  if (length > max_length || length > remaining()) {
    fail(field, at,
         "a string of " + std::to_string(length) + " bytes; at most " +
             std::to_string(std::min(max_length, remaining())) + " are possible");
  }
  const size_t begin = out.size();
  out.resize(begin + length);
  read_bytes(std::as_writable_bytes(std::span(out).subspan(begin)), field);
}

uint64_t ByteCursor::read_count(uint64_t least_bytes, const std::string& field) {
  const uint64_t at = offset_;
  const auto count = read<uint64_t>(field);
  if (count > remaining() / least_bytes) {
    fail(field, at,
         std::to_string(count) + " elements; the rest of the file holds at most " +
             std::to_string(remaining() / least_bytes));
  }
  return count;
}

}  // namespace edgemoe
