#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "../fuzz/gguf_entry.h"
#include "gguf_image.h"
#include "test.h"

namespace edgemoe::test {
namespace {

std::vector<std::filesystem::path> corpus() {
  const std::filesystem::path tests(EDGEMOE_TESTS_FOLDER);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(tests / "fuzz/corpus/gguf")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

TEST("gguf corpus: every file of the fuzzer opens or is refused, and keeps the promises") {
  size_t opened = 0;
  size_t refused = 0;
  for (const std::filesystem::path& path : corpus()) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    try {
      fuzz::run_gguf(bytes_of(bytes)) ? ++opened : ++refused;
    } catch (const std::exception& error) {
      report_failure(__FILE__, __LINE__, path.filename().string() + ": " + error.what());
    }
  }
  CHECK(opened > 5);
  CHECK(refused > 5);
}

}  // namespace edgemoe::test
