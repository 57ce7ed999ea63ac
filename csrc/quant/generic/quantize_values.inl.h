// Codes whose values are not evenly spaced: those of IQ4_NL and IQ4_XS, and the 4-bit floats.
#pragma once

#include "quant/generic/quantize_lanes.inl.h"
#include "quant/value_tables.h"

namespace edgemoe {
namespace {

// The value nearest to each lane: the lowest, and a step more for every midpoint that is passed.
struct Iq4Codes {
  EDGEMOE_LANES static Floats round(Floats value) noexcept {
    Floats found = splat(kIq4Values[0]);
#pragma GCC unroll 15
    for (size_t i = 1; i < 16; ++i) {
      const auto low = static_cast<float>(kIq4Values[i - 1]);
      const auto high = static_cast<float>(kIq4Values[i]);
      found += where(value > (low + high) * 0.5f, splat(high - low));
    }
    return found;
  }
};

// Doubled values, as kFp4DoubledValues has them.
struct Fp4Codes {
  EDGEMOE_LANES static Floats round(Floats value) noexcept {
    const Floats size = magnitude(value);
    Floats found{};
#pragma GCC unroll 7
    for (size_t i = 1; i < 8; ++i) {
      const auto low = static_cast<float>(kFp4DoubledValues[i - 1]);
      const auto high = static_cast<float>(kFp4DoubledValues[i]);
      found += where(size > (low + high) * 0.5f, splat(high - low));
    }
    return value < 0.0f ? -found : found;
  }
};

// Index of each value of a table of 16; values that are not in it have index 0.
struct ValueIndices {
  uint8_t index[256] = {};
  explicit constexpr ValueIndices(const int8_t (&values)[16]) noexcept {
    for (size_t i = 0; i < 16; ++i) {
      const auto at = static_cast<uint8_t>(values[i]);
      if (values[i] != 0 || i == 0) index[at] = static_cast<uint8_t>(i);
    }
  }
};
inline constexpr ValueIndices kIq4Indices(kIq4Values);
inline constexpr ValueIndices kFp4Indices(kFp4DoubledValues);

inline void values_to_indices(const ValueIndices& indices, size_t count, int8_t* codes) noexcept {
  for (size_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int8_t>(indices.index[static_cast<uint8_t>(codes[i])]);
  }
}

}  // namespace
}  // namespace edgemoe
