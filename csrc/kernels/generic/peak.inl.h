// The most products of codes that a level can do in a second: its multiply instructions on
// registers alone, which is the limit that measured products are compared with.
//
// The file that includes this one has defined
//
//   PeakSum            sums in a register
//   PeakCodes          codes, and activations, in a register
//   kPeakSums          enough sums to hide how long one instruction takes, all in registers
//   kPeakProducts      products that a step adds
//   zero_peak_sum(), peak_codes()
//   peak_step(codes, x, sum)   the cheapest exact way that the level has for any format
#pragma once

#include "kernels/kernel_table.h"

// Hides from the compiler what the register holds: it would take equal products out of the loop.
#if defined(__x86_64__)
#define EDGEMOE_HIDE(vector) asm volatile("" : "+v"(vector))
#else
#define EDGEMOE_HIDE(vector) asm volatile("" : "+w"(vector))
#endif

namespace edgemoe::kernels {
namespace {

uint64_t multiply_peak(uint64_t rounds) noexcept {
  PeakSum sums[kPeakSums];
  PeakCodes codes = peak_codes();
  PeakCodes x = peak_codes();
  EDGEMOE_HIDE(x);
#pragma GCC unroll 16
  for (PeakSum& sum : sums) {
    sum = zero_peak_sum();
    EDGEMOE_HIDE(sum);  // equal sums would be computed once
  }
  for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (PeakSum& sum : sums) peak_step(codes, x, sum);
  }
#pragma GCC unroll 16
  for (PeakSum& sum : sums) EDGEMOE_HIDE(sum);
  return rounds * kPeakSums * kPeakProducts;
}

}  // namespace
}  // namespace edgemoe::kernels
