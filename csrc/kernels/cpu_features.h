// What this CPU and its operating system support.
#pragma once

namespace edgemoe::kernels {

// True when every instruction that the level's file may use is there and the operating system
// saves the registers. Always false on other architectures.
struct CpuFeatures {
  bool avx2 = false;     // AVX2, FMA, F16C
  bool avxvnni = false;  // avx2 and AVX-VNNI
  bool avx512 = false;   // avx2 and AVX-512 F, BW, VL, DQ, VNNI
  bool dotprod = false;  // NEON and sdot
  bool i8mm = false;     // dotprod and smmla
};

CpuFeatures detect_cpu_features() noexcept;

}  // namespace edgemoe::kernels
