// Scalar conversions of 16-bit and 8-bit floats; exact, with no library or instruction-set help.
// Always inlined, so that files built for one instruction set may use them: no symbol is left that
// the linker could give to the common path.
#pragma once

#include <cstdint>

namespace edgemoe {

// IEEE binary16 to binary32; exact for every bit pattern, NaN payloads kept.
[[gnu::always_inline]] constexpr float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t fraction = half & 0x3FFu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, magnitude) | sign);
  }
  const uint32_t wide_exponent = exponent == 31 ? 255u : exponent + 112u;
  return __builtin_bit_cast(float, sign | (wide_exponent << 23) | (fraction << 13));
}

// binary32 to IEEE binary16, round to nearest even, overflow to infinity.
[[gnu::always_inline]] constexpr uint16_t float_to_half(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude >
      0x7F800000u) {  // the payload's top bits stay, the quiet bit is set (as vcvtps2ph does)
    return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  }
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds past 65504
  if (magnitude < 0x38800000u) {  // subnormal: the addition rounds at 2^-24, ties to even
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (__builtin_bit_cast(uint32_t, shifted) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

[[gnu::always_inline]] constexpr float bfloat16_to_float(uint16_t value) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(value) << 16);
}

}  // namespace edgemoe
