#include "kernels/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace edgemoe::kernels {

#if defined(__x86_64__)
namespace {

struct Registers {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// All zero when the CPU does not know the leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) noexcept {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// XCR0: the register sets that the operating system saves. Requires: CPUID reports OSXSAVE.
uint32_t enabled_register_sets() noexcept {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr bool all_set(uint32_t value, uint32_t mask) {
  return (value & mask) == mask;
}
constexpr uint32_t bit(int n) {
  return uint32_t{1} << n;
}

}  // namespace

CpuFeatures detect_cpu_features() noexcept {
  constexpr uint32_t kFma = bit(12);
  constexpr uint32_t kOsXsave = bit(27);
  constexpr uint32_t kAvx = bit(28);
  constexpr uint32_t kF16c = bit(29);
  constexpr uint32_t kAvx2 = bit(5);
  constexpr uint32_t kAvx512 = bit(16) | bit(17) | bit(30) | bit(31);  // F, DQ, BW, VL
  constexpr uint32_t kVnni = bit(11);
  constexpr uint32_t kAvxVnni = bit(4);
  constexpr uint32_t kYmmState = bit(1) | bit(2);
  constexpr uint32_t kZmmState = kYmmState | bit(5) | bit(6) | bit(7);

  CpuFeatures features;
  const Registers basic = cpuid(1);
  if (!all_set(basic.ecx, kFma | kOsXsave | kAvx | kF16c)) return features;
  const Registers extended = cpuid(7);
  const uint32_t state = enabled_register_sets();
  features.avx2 = all_set(state, kYmmState) && all_set(extended.ebx, kAvx2);
  features.avx512 = features.avx2 && all_set(state, kZmmState) && all_set(extended.ebx, kAvx512) &&
                    all_set(extended.ecx, kVnni);
  const bool has_subleaf = extended.eax >= 1;
  features.avxvnni = features.avx2 && has_subleaf && all_set(cpuid(7, 1).eax, kAvxVnni);
  return features;
}
#elif defined(__aarch64__)
CpuFeatures detect_cpu_features() noexcept {
  constexpr unsigned long kI8mm = 1UL << 13;  // HWCAP2_I8MM, which older kernel headers lack
  CpuFeatures features;
  features.dotprod = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  features.i8mm = features.dotprod && (getauxval(AT_HWCAP2) & kI8mm) != 0;
  return features;
}
#else
CpuFeatures detect_cpu_features() noexcept {
  return {};
}
#endif

}  // namespace edgemoe::kernels
