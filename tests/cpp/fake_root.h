// A folder that imitates the parts of /proc and /sys that are read.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace edgemoe::test {

class FakeRoot {
 public:
  FakeRoot() {
    // A name of its own: another run of the tests may be under way.
    std::string name = (std::filesystem::temp_directory_path() / "edgemoe-root-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + name);
    path_ = name;
    write("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n");
  }
  FakeRoot(const FakeRoot&) = delete;
  ~FakeRoot() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root() const { return path_.string() + "/"; }

 private:
  std::filesystem::path path_;
};

}  // namespace edgemoe::test
