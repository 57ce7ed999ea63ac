// One file that is written front to back in large pieces, past the page cache where the system
// allows it, so that a long file takes no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/aligned_buffer.h"

namespace edgemoe {

class FileWriter {
 public:
  // Opens or creates `path`; what it holds stays. Errors: kIo naming the path.
  explicit FileWriter(std::string path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();

  static constexpr size_t kPieceBytes = 4u << 20;
  // Memory that a writer takes.
  static constexpr size_t kBufferBytes = kPieceBytes + 4096;

  const std::string& path() const noexcept { return path_; }
  uint64_t size() const;  // of the file now

  // Takes the room of a file of `bytes` from the file system, where that is possible. Errors: kIo
  // when the room is not there; the file is then as it was.
  void reserve(uint64_t bytes);
  // Where the next append() goes. What lies before stays.
  void start(uint64_t offset);
  void append(std::span<const std::byte> bytes);
  // Appends zeros. Requires: offset >= position().
  void pad_to(uint64_t offset);
  uint64_t position() const noexcept { return begin_ + filled_; }
  // Everything before has been handed to the system.
  uint64_t written() const noexcept { return begin_; }
  // Writes what is buffered and makes the file end here.
  void end();
  // Makes the file end there. Requires: nothing is buffered.
  void resize(uint64_t bytes);
  // Overwrites bytes of the file, outside the order. Requires: nothing is buffered.
  void overwrite(uint64_t offset, std::span<const std::byte> bytes);
  // Returns when the device has everything.
  void sync();

 private:
  void write_buffer(size_t bytes);
  void write_whole(uint64_t offset, std::span<const std::byte> bytes);
  void set_direct(bool direct) noexcept;
  [[noreturn]] void fail(const std::string& what, int error_number) const;

  std::string path_;
  int descriptor_ = -1;
  bool direct_ = false;
  AlignedBuffer buffer_;  // bytes of the file from begin_ on, which is aligned
  uint64_t begin_ = 0;
  size_t filled_ = 0;
};

// Makes a rename or removal in the folder of `path` last. Errors: kIo.
void sync_folder_of(const std::string& path);

}  // namespace edgemoe
