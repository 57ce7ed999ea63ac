// A file written in pieces is the bytes that were appended, wherever writing started.
#include "io/file_writer.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "temporary_file.h"
#include "test.h"

namespace edgemoe::test {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string noise(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text(count, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

TEST("pieces of any size make the file") {
  const TemporaryFile place(0);
  const std::string text = noise(2 * FileWriter::kPieceBytes + 12345, 1);
  FileWriter writer(place.path());
  writer.start(0);
  size_t at = 0;
  for (size_t count = 1; at < text.size(); count = count * 7 + 1) {
    writer.append(bytes_of(text.substr(at, count)));
    at += std::min(count, text.size() - at);
    CHECK_EQUAL(writer.position(), at);
    CHECK(writer.written() <= at);
  }
  writer.end();
  writer.sync();
  CHECK(contents(place.path()) == text);
  CHECK_EQUAL(writer.written(), text.size());
}

TEST("writing goes on anywhere and keeps what lies before") {
  const std::string first = noise(100'000, 2);
  const std::string second = noise(50'000, 3);
  for (const size_t offset : {0, 1, 4095, 4096, 4097, 99'999, 100'000, 123'456}) {
    const TemporaryFile place(0);
    std::ofstream(place.path(), std::ios::binary) << first;
    FileWriter writer(place.path());
    writer.start(offset);
    writer.append(bytes_of(second));
    writer.pad_to(offset + second.size() + 5000);
    writer.end();
    std::string expected = first.substr(0, offset);
    expected.resize(offset);
    CHECK(contents(place.path()) == expected + second + std::string(5000, '\0'));
    writer.overwrite(3, bytes_of("abc"));
    CHECK_EQUAL(contents(place.path()).substr(3, 3), "abc");
    writer.resize(7);
    CHECK_EQUAL(std::filesystem::file_size(place.path()), 7u);
  }
}

TEST("room is taken and given back") {
  const TemporaryFile place(0);
  FileWriter writer(place.path());
  writer.reserve(1 << 20);
  CHECK(writer.size() == 1 << 20 || writer.size() == 0);  // where the file system can
  writer.start(0);
  writer.append(bytes_of("short"));
  writer.end();
  CHECK_EQUAL(contents(place.path()), "short");
}

TEST("what is no file is refused") {
  CHECK(ERROR_MESSAGE(ErrorCode::kIo, FileWriter("/nowhere/at/all")) != "");
  CHECK(ERROR_MESSAGE(ErrorCode::kIo, FileWriter("/dev/null")) != "");
}

}  // namespace
}  // namespace edgemoe::test
