// A folder that imitates the parts of /proc and /sys that are read.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace edgemoe::test {

class FakeRoot {
 public:
  FakeRoot() : path_(std::filesystem::temp_directory_path() / "edgemoe-fake-root") {
    std::filesystem::remove_all(path_);
    write("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n");
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }

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
