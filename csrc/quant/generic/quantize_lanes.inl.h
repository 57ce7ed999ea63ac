// Vectors of one register, for loops in which every lane is a sub-block of its own. No operation
// mixes lanes, so the number of lanes changes no result: a level may have registers of any size.
//
// Everything here has internal linkage; the flags of the level's file choose the registers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgemoe {
namespace {

#if defined(__AVX2__)
inline constexpr size_t kLanes = 8;
#else
inline constexpr size_t kLanes = 4;
#endif

using Floats [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using Integers [[gnu::vector_size(kLanes * sizeof(int32_t))]] = int32_t;

#define EDGEMOE_LANES [[gnu::always_inline]] inline

EDGEMOE_LANES Floats splat(float value) noexcept {
  return Floats{} + value;
}

EDGEMOE_LANES Floats load(const float* from) noexcept {
  Floats lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

EDGEMOE_LANES void store(Floats lanes, float* to) noexcept {
  __builtin_memcpy(to, &lanes, sizeof lanes);
}

EDGEMOE_LANES Floats minimum(Floats a, Floats b) noexcept {
  return a < b ? a : b;
}

EDGEMOE_LANES Floats maximum(Floats a, Floats b) noexcept {
  return a > b ? a : b;
}

EDGEMOE_LANES Floats clamp(Floats value, float low, float high) noexcept {
  return minimum(maximum(value, splat(low)), splat(high));
}

EDGEMOE_LANES Floats magnitude(Floats value) noexcept {
  return reinterpret_cast<Floats>(reinterpret_cast<Integers>(value) & 0x7FFFFFFF);
}

// To the nearest integer, ties to even. Requires: |value| < 2^22.
EDGEMOE_LANES Floats nearest(Floats value) noexcept {
  constexpr float kMagic = 0x1.8p23f;
  return (value + kMagic) - kMagic;
}

// value where the mask is set, else 0.
EDGEMOE_LANES Floats where(Integers mask, Floats value) noexcept {
  return reinterpret_cast<Floats>(reinterpret_cast<Integers>(value) & mask);
}

// 1 / value, and 0 for 0.
EDGEMOE_LANES Floats inverse(Floats value) noexcept {
  return where(value != 0.0f, 1.0f / value);
}

// a / b, and 0 where b is not positive.
EDGEMOE_LANES Floats ratio(Floats a, Floats b) noexcept {
  return where(b > 0.0f, a / b);
}

}  // namespace
}  // namespace edgemoe
