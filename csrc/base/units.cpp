#include "base/units.h"

#include <cstdio>
#include <iterator>

namespace edgemoe {

std::string format_bytes(uint64_t bytes) {
  static constexpr const char* kSuffixes[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < kKiB) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024.0;
  size_t suffix = 0;
  while (value >= 1024.0 && suffix + 1 < std::size(kSuffixes)) {
    value /= 1024.0;
    ++suffix;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f %s" : "%.1f %s", value, kSuffixes[suffix]);
  return text;
}

}  // namespace edgemoe
