#include "kernels/dispatch.h"

#include <array>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "kernels/cpu_features.h"
#include "kernels/levels.h"

namespace edgemoe::kernels {
namespace {

struct Level {
  const char* name;
  bool (*supported)(const CpuFeatures&);
  void (*fill)(KernelTable&) noexcept;
};

constexpr Level kLevels[] = {
    {"scalar", [](const CpuFeatures&) { return true; }, fill_scalar},
#if defined(__x86_64__)
    {"avx2", [](const CpuFeatures& cpu) { return cpu.avx2; }, fill_avx2},
    // One level, two encodings of its instructions.
    {"avxvnni", [](const CpuFeatures& cpu) { return cpu.avxvnni; }, fill_avxvnni},
    {"avxvnni", [](const CpuFeatures& cpu) { return cpu.avx512 && !cpu.avxvnni; },
     fill_avxvnni_evex},
    {"avx512", [](const CpuFeatures& cpu) { return cpu.avx512; }, fill_avx512},
#elif defined(__aarch64__)
    {"neon", [](const CpuFeatures&) { return true; }, fill_neon},
    {"dotprod", [](const CpuFeatures& cpu) { return cpu.dotprod; }, fill_dotprod},
    {"i8mm", [](const CpuFeatures& cpu) { return cpu.i8mm; }, fill_i8mm},
#endif
};

// The tables of this CPU, built once.
struct Tables {
  std::array<KernelTable, std::size(kLevels)> storage{};
  std::array<const KernelTable*, std::size(kLevels)> available{};
  size_t count = 0;

  Tables() noexcept {
    const CpuFeatures cpu = detect_cpu_features();
    KernelTable table{};
    for (const Level& level : kLevels) {
      if (!level.supported(cpu)) continue;
      level.fill(table);
      table.level = level.name;
      storage[count] = table;
      available[count] = &storage[count];
      ++count;
    }
  }
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;
};

std::string level_list() {
  std::string known;
  std::string_view last;
  for (const Level& level : kLevels) {
    if (level.name == last) continue;
    known += (known.empty() ? "" : ", ") + std::string(level.name);
    last = level.name;
  }
  std::string available;
  for (const KernelTable* table : available_tables()) {
    available += (available.empty() ? "" : ", ") + std::string(table->level);
  }
  return "this build knows " + known + "; this CPU supports " + available;
}

const KernelTable* find_table(std::string_view level) noexcept {
  for (const KernelTable* table : available_tables()) {
    if (level == table->level) return table;
  }
  return nullptr;
}

}  // namespace

std::span<const KernelTable* const> available_tables() noexcept {
  static const Tables tables;
  return {tables.available.data(), tables.count};
}

std::span<const KernelTable* const> chosen_tables() {
  const auto tables = available_tables();
  const char* level = std::getenv("EDGEMOE_LEVEL");
  if (level == nullptr || *level == '\0') return tables;
  for (size_t i = 0; i < tables.size(); ++i) {
    if (std::string_view(level) == tables[i]->level) return tables.subspan(i, 1);
  }
  throw Error(ErrorCode::kArgument, "cannot use instruction-set level '" + std::string(level) +
                                        "' (environment variable EDGEMOE_LEVEL): " + level_list() +
                                        "; choose one of the latter or unset the variable");
}

const KernelTable& select_table() {
  return *chosen_tables().back();
}

const KernelTable& table_by_name(std::string_view level) {
  if (const KernelTable* table = find_table(level)) return *table;
  throw Error(ErrorCode::kArgument, "cannot use instruction-set level '" + std::string(level) +
                                        "': " + level_list() + "; choose one of the latter");
}

}  // namespace edgemoe::kernels
