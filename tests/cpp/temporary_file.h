// A file of known random bytes, removed with the object.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgemoe::test {

class TemporaryFile {
 public:
  explicit TemporaryFile(size_t bytes) : bytes_(bytes) {
    uint32_t state = 12345;
    for (std::byte& byte : bytes_) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<std::byte>(state >> 24);
    }
    path_ = (std::filesystem::temp_directory_path() / "edgemoe-test-XXXXXX").string();
    const int descriptor = ::mkstemp(path_.data());
    if (descriptor < 0) throw std::runtime_error("mkstemp failed: " + path_);
    const ssize_t written = ::write(descriptor, bytes_.data(), bytes_.size());
    ::close(descriptor);
    if (written != static_cast<ssize_t>(bytes)) throw std::runtime_error("cannot write " + path_);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { ::unlink(path_.c_str()); }

  const std::string& path() const noexcept { return path_; }
  const std::byte* data() const noexcept { return bytes_.data(); }
  size_t size() const noexcept { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
  std::string path_;
};

}  // namespace edgemoe::test
