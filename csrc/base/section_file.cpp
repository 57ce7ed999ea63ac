#include "base/section_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

namespace edgemoe {
namespace {

constexpr char kMagic[8] = {'E', 'D', 'G', 'E', 'M', 'O', 'E', '1'};
constexpr uint64_t kMaxNameBytes = 256;
// Of the name of a file that is being written: what mkstemp makes unique.
constexpr std::string_view kRandomEnd = "XXXXXX";

template <class T>
std::span<const std::byte> bytes_of(const T& value) noexcept {
  return std::as_bytes(std::span(&value, 1));
}

class Writer {
 public:
  void add(std::span<const std::byte> bytes) {
    data_.insert(data_.end(), bytes.begin(), bytes.end());
  }
  template <class T>
  void add_value(T value) {
    add(bytes_of(value));
  }
  const std::vector<std::byte>& data() const noexcept { return data_; }

 private:
  std::vector<std::byte> data_;
};

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> data) : rest_(data) {}
  std::optional<std::span<const std::byte>> take(uint64_t count) noexcept {
    if (count > rest_.size()) return std::nullopt;
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::optional<uint64_t> number() noexcept {
    const auto bytes = take(sizeof(uint64_t));
    if (!bytes) return std::nullopt;
    uint64_t value;
    std::memcpy(&value, bytes->data(), sizeof(value));
    return value;
  }
  bool at_end() const noexcept { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

// Empty unless the file begins with our magic bytes and the key.
std::vector<std::byte> file_bytes(const std::string& path, uint64_t key) {
  // Anything else, a FIFO for one, may never be opened.
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return {};
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size <= 0 || static_cast<uint64_t>(size) > kMaxSectionFileBytes) return {};
  char begin[sizeof(kMagic) + sizeof(key)] = {};
  file.seekg(0);
  file.read(begin, sizeof(begin));
  const bool ours = file && std::memcmp(begin, kMagic, sizeof(kMagic)) == 0 &&
                    std::memcmp(begin + sizeof(kMagic), &key, sizeof(key)) == 0;
  if (!ours) return {};
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  return file ? bytes : std::vector<std::byte>();
}

// Empty when a length does not fit what is there.
Sections parse(Cursor cursor) {
  Sections sections;
  while (!cursor.at_end()) {
    const std::optional<uint64_t> name_bytes = cursor.number();
    if (!name_bytes || *name_bytes > kMaxNameBytes) return {};
    const auto name = cursor.take(*name_bytes);
    const std::optional<uint64_t> count = cursor.number();
    if (!name || !count) return {};
    const auto bytes = cursor.take(*count);
    if (!bytes) return {};
    sections[std::string(reinterpret_cast<const char*>(name->data()), name->size())].assign(
        bytes->begin(), bytes->end());
  }
  return sections;
}

bool write_whole(int descriptor, std::span<const std::byte> data) noexcept {
  while (!data.empty()) {
    const ssize_t count = ::write(descriptor, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    data = data.subspan(static_cast<size_t>(count));
  }
  return ::fsync(descriptor) == 0;
}

// What a process that was killed while it wrote `path` has left; one that still writes is younger.
void remove_leftovers(const std::filesystem::path& path) {
  constexpr std::chrono::hours kOld{1};
  const std::string start = path.filename().string() + ".";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.size() != start.size() + kRandomEnd.size() || !name.starts_with(start)) continue;
    const auto written = entry.last_write_time(ignored);
    if (ignored || std::filesystem::file_time_type::clock::now() - written < kOld) continue;
    if (entry.is_regular_file(ignored)) std::filesystem::remove(entry.path(), ignored);
  }
}

}  // namespace

uint64_t hash_bytes(std::span<const std::byte> bytes, uint64_t seed) noexcept {
  for (const std::byte byte : bytes) {
    seed = (seed ^ static_cast<uint64_t>(byte)) * 0x100000001b3;
  }
  return seed;
}

Sections read_sections(const std::string& path, uint64_t key) {
  const std::vector<std::byte> data = file_bytes(path, key);
  Cursor cursor(data);
  const auto magic = cursor.take(sizeof(kMagic));
  const std::optional<uint64_t> stored_key = cursor.number();
  const std::optional<uint64_t> checksum = cursor.number();
  if (!magic || !stored_key || !checksum) return {};
  if (std::memcmp(magic->data(), kMagic, sizeof(kMagic)) != 0 || *stored_key != key) return {};
  constexpr size_t kHeaderBytes = sizeof(kMagic) + 2 * sizeof(uint64_t);
  if (hash_bytes(std::span(data).subspan(kHeaderBytes), key) != *checksum) return {};
  return parse(cursor);
}

bool write_sections(const std::string& path, uint64_t key, const Sections& sections) noexcept {
  try {
    Writer body;
    for (const auto& [name, bytes] : sections) {
      body.add_value(uint64_t{name.size()});
      body.add(std::as_bytes(std::span(name)));
      body.add_value(uint64_t{bytes.size()});
      body.add(bytes);
    }
    Writer whole;
    whole.add(std::as_bytes(std::span(kMagic)));
    whole.add_value(key);
    whole.add_value(hash_bytes(body.data(), key));
    whole.add(body.data());
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    remove_leftovers(path);
    std::string temporary = path + "." + std::string(kRandomEnd);
    const int descriptor = ::mkstemp(temporary.data());
    if (descriptor < 0) return false;
    const bool written = write_whole(descriptor, whole.data());
    const bool closed = ::close(descriptor) == 0;
    if (written && closed && ::rename(temporary.c_str(), path.c_str()) == 0) return true;
    ::unlink(temporary.c_str());
    return false;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace edgemoe
