// Reads a header front to back through a window, so that only the header's bytes are touched and
// nothing is taken on trust: every read is checked against what is left of the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace edgemoe {

// Where the bytes come from: a file, or an image in memory.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const noexcept = 0;
  // Requires: offset + out.size() <= size(). Errors: kIo.
  virtual void read(uint64_t offset, std::span<std::byte> out) const = 0;
};

// What is being read, for messages: {"tensor", "output.weight", "shape"}. It is turned into text
// only when something is wrong: a vocabulary has half a million strings.
struct Field {
  std::string_view kind;
  std::string_view name = {};  // from the file: made printable and cut before it is shown
  std::string_view part = {};
};

// `name` as one line of printable ASCII of limited length.
std::string shown(std::string_view name);

class ByteCursor {
 public:
  // `name` is the file as messages show it. Both are borrowed.
  ByteCursor(const ByteSource& source, const std::string& name);

  uint64_t offset() const noexcept { return offset_; }
  uint64_t remaining() const noexcept { return source_.size() - offset_; }
  const std::string& name() const noexcept { return name_; }

  // Errors of all reads: kFormat when the file ends first or the header is too large.
  template <class T>
  T read(const Field& field) {
    T value;
    read_bytes(std::as_writable_bytes(std::span(&value, 1)), field);
    return value;
  }
  void read_bytes(std::span<std::byte> out, const Field& field);
  // A 64-bit length, then that many bytes, appended to `out`. Errors: kFormat above `max_length`.
  void read_string(std::string& out, uint64_t max_length, const Field& field);
  // A 64-bit count, at most `max`, of elements that take at least `least_bytes` each.
  // Errors: kFormat when the rest of the file cannot hold them.
  uint64_t read_count(uint64_t least_bytes, uint64_t max, const Field& field);

  // Raises "NAME: FIELD at offset AT: WHAT".
  [[noreturn]] void fail(ErrorCode code, const Field& field, uint64_t at,
                         const std::string& what) const;
  [[noreturn]] void fail(const Field& field, uint64_t at, const std::string& what) const {
    fail(ErrorCode::kFormat, field, at, what);
  }

 private:
  const ByteSource& source_;
  const std::string& name_;
  uint64_t offset_ = 0;
  std::vector<std::byte> window_;  // bytes from window_begin_ on
  uint64_t window_begin_ = 0;
};

}  // namespace edgemoe
