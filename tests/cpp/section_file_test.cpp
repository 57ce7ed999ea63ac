#include "base/section_file.h"

#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "test.h"

namespace edgemoe {
namespace {

std::vector<std::byte> bytes(std::string_view text) {
  const auto all = std::as_bytes(std::span(text));
  return {all.begin(), all.end()};
}

class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "edgemoe-sections-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string file() const { return path_ / "deep" / "file"; }
  size_t num_files() const {
    const auto all = std::filesystem::directory_iterator(path_ / "deep");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

 private:
  std::filesystem::path path_;
};

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void overwrite(const std::string& path, const std::string& data) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << data;
}

TEST("sections come back as they were written, under their key only") {
  const Folder folder;
  const Sections written = {{"one", bytes("first")}, {"two", {}}};
  CHECK(write_sections(folder.file(), 7, written));
  CHECK(read_sections(folder.file(), 7) == written);
  CHECK(read_sections(folder.file(), 8).empty());
  CHECK(read_sections(folder.file() + "-missing", 7).empty());
  CHECK(write_sections(folder.file(), 7, {{"three", bytes("3")}}));
  CHECK_EQUAL(read_sections(folder.file(), 7).count("three"), 1u);
  CHECK_EQUAL(folder.num_files(), 1u);
}

TEST("a FIFO in the place of the file reads as empty, at once") {
  const Folder folder;
  CHECK(write_sections(folder.file(), 7, {{"one", bytes("first")}}));
  const std::string fifo = folder.file() + "-fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(read_sections(fifo, 7).empty());
}

TEST("a damaged file reads as empty") {
  const Folder folder;
  CHECK(write_sections(folder.file(), 7, {{"one", bytes("first")}, {"two", bytes("second")}}));
  const std::string whole = contents(folder.file());
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    overwrite(folder.file(), damaged);
    CHECK(read_sections(folder.file(), 7).empty());
    overwrite(folder.file(), whole.substr(0, at));
    CHECK(read_sections(folder.file(), 7).empty());
  }
}

TEST("what a killed process left behind goes at the next write, what is being written stays") {
  const Folder folder;
  REQUIRE(write_sections(folder.file(), 1, {{"a", bytes("one")}}));
  const std::string old = folder.file() + ".abcdef";
  for (const std::string& name :
       {old, folder.file() + ".ghijkl", folder.file() + "-other.abcdef"}) {
    std::ofstream(name) << "half";
  }
  const auto now = std::filesystem::file_time_type::clock::now();
  std::filesystem::last_write_time(old, now - std::chrono::hours(2));
  std::filesystem::last_write_time(folder.file() + "-other.abcdef", now - std::chrono::hours(2));
  REQUIRE(write_sections(folder.file(), 1, {{"a", bytes("two")}}));
  CHECK(!std::filesystem::exists(old));
  CHECK_EQUAL(folder.num_files(), 3u);
}

TEST("a folder that cannot be made is no error") {
  const Folder folder;
  CHECK(write_sections(folder.file(), 1, {}));
  CHECK(!write_sections(folder.file() + "/below-a-file/x", 1, {}));
}

}  // namespace
}  // namespace edgemoe
