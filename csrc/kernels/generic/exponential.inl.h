// exp, tanh and the logistic function in float32, the same bits at every level: range reduction and
// polynomials with explicit fma, no branches, so loops over them vectorise.
#pragma once

#include <cstdint>

namespace edgemoe::kernels {
namespace {

inline float float_from_bits(uint32_t bits) noexcept {
  return __builtin_bit_cast(float, bits);
}
inline uint32_t bits_of(float value) noexcept {
  return __builtin_bit_cast(uint32_t, value);
}

// Adding 1.5 * 2^23 rounds |x| < 2^22 to an integer, ties to even, and leaves it in the low bits.
inline constexpr float kRoundingShift = 0x1.8p23f;

// 2^n for n in [-126, 127].
inline float power_of_two(uint32_t n) noexcept {
  return float_from_bits((n + 127u) << 23);
}

// e^x within 1.1 ulp; 0 at -inf, gradual underflow, +inf past 88.73, NaN stays NaN.
inline float exponential(float x) noexcept {
  constexpr float kLowest = -104.0f;  // e^x rounds to 0
  constexpr float kHighest = 89.0f;   // e^x overflows
  constexpr float kLog2E = 0x1.715476p+0f;
  constexpr float kLn2High = 0x1.62e4p-1f;  // few bits: n * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  x = x < kLowest ? kLowest : x;
  x = x > kHighest ? kHighest : x;
  const float shifted = __builtin_fmaf(x, kLog2E, kRoundingShift);
  const float n = shifted - kRoundingShift;
  const float r = __builtin_fmaf(n, -kLn2Low, __builtin_fmaf(n, -kLn2High, x));
  // e^r = 1 + r + r^2 q(r) on |r| <= ln 2 / 2; q is a minimax fit, relative error 3e-9.
  float q = 0x1.6a2434p-10f;
  q = __builtin_fmaf(q, r, 0x1.1239e2p-7f);
  q = __builtin_fmaf(q, r, 0x1.5558f2p-5f);
  q = __builtin_fmaf(q, r, 0x1.555492p-3f);
  q = __builtin_fmaf(q, r, 0x1.fffffcp-2f);
  const float power = 1.0f + __builtin_fmaf(q, r * r, r);
  // Two factors, because 2^n alone does not reach the subnormals nor the largest results. Unsigned
  // arithmetic: for a NaN the exponent is nonsense that must not trap.
  const uint32_t exponent = bits_of(shifted) - bits_of(kRoundingShift);
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(exponent) >> 1);
  return power * power_of_two(half) * power_of_two(exponent - half);
}

inline float logistic(float x) noexcept {
  return 1.0f / (1.0f + exponential(-x));
}

// tanh within 2 ulp.
inline float hyperbolic_tangent(float x) noexcept {
  constexpr float kSmall = 0.625f;
  const float magnitude = float_from_bits(bits_of(x) & 0x7FFFFFFFu);
  // tanh x = x + x^3 p(x^2) near 0, where the other form cancels.
  const float z = x * x;
  float p = -0x1.76ac18p-8f;
  p = __builtin_fmaf(p, z, 0x1.5256d6p-6f);
  p = __builtin_fmaf(p, z, -0x1.b84448p-5f);
  p = __builtin_fmaf(p, z, 0x1.110768p-3f);
  p = __builtin_fmaf(p, z, -0x1.555534p-2f);
  const float near = __builtin_fmaf(p * z, x, x);
  const float far = 1.0f - 2.0f / (exponential(2.0f * magnitude) + 1.0f);
  const float far_signed = float_from_bits(bits_of(far) | (bits_of(x) & 0x80000000u));
  return magnitude < kSmall ? near : far_signed;
}

}  // namespace
}  // namespace edgemoe::kernels
