// Where the bits of the IQ types of 2 and 3 bits go; unpack_iq.cpp reads them.
#pragma once

#include "quant/codebooks.h"
#include "quant/generic/quantize_block32.inl.h"
#include "quant/generic/quantize_grid_fit.inl.h"

namespace edgemoe {
namespace {

inline void put_u32(uint32_t value, std::byte* to) noexcept {
  __builtin_memcpy(to, &value, sizeof value);
}

// Sub-scales as nibbles, low before high.
inline void put_nibble_scales(const uint8_t* scales, size_t count, std::byte* to) noexcept {
  for (size_t s = 0; s < count; s += 2) {
    to[s / 2] = static_cast<std::byte>(scales[s] | scales[s + 1] << 4);
  }
}

// Four groups of seven signs and a scale.
template <class Type>
inline uint32_t signs_and_scale(const GridUnit<Type>& unit, size_t sub) noexcept {
  uint32_t word = static_cast<uint32_t>(unit.scale[sub]) << 28;
  for (size_t group = 0; group < 4; ++group) {
    word |= (unit.signs[group * Type::kSubs + sub] & 127u) << (7 * group);
  }
  return word;
}

inline void quantize_IQ2_XXS(const float* weights, const float* importance,
                             std::byte* out) noexcept {
  using Type = GridType<Iq2Values, 256, 8, true>;
  GridUnit<Type> unit;
  fit_grid_unit<Type>(weights, importance, search_grids().iq2_xxs, kGridIq2Xxs, 0.125f, unit);
  put_u16(unit.d.bits, out);
  for (size_t s = 0; s < 8; ++s) {
    std::byte* part = out + 2 + s * 8;
    for (size_t k = 0; k < 4; ++k) part[k] = static_cast<std::byte>(unit.entry[k * 8 + s]);
    put_u32(signs_and_scale(unit, s), part + 4);
  }
}

inline void quantize_IQ2_XS(const float* weights, const float* importance,
                            std::byte* out) noexcept {
  using Type = GridType<Iq2Values, 512, 16, true>;
  GridUnit<Type> unit;
  fit_grid_unit<Type>(weights, importance, search_grids().iq2_xs, kGridIq2Xs, 0.125f, unit);
  put_u16(unit.d.bits, out);
  for (size_t k = 0; k < 32; ++k) {
    const size_t at = k % 2 * 16 + k / 2;
    const unsigned signs = unit.signs[at] & 127u;
    put_u16(static_cast<uint16_t>(unit.entry[at] | signs << 9), out + 2 + 2 * k);
  }
  put_nibble_scales(unit.scale, 16, out + 66);
}

inline void quantize_IQ2_S(const float* weights, const float* importance, std::byte* out) noexcept {
  using Type = GridType<Iq2Values, 1024, 16, false>;
  GridUnit<Type> unit;
  fit_grid_unit<Type>(weights, importance, search_grids().iq2_s, kGridIq2S, 0.125f, unit);
  put_u16(unit.d.bits, out);
  uint8_t high[8] = {};
  for (size_t k = 0; k < 32; ++k) {
    const size_t at = k % 2 * 16 + k / 2;
    out[2 + k] = static_cast<std::byte>(unit.entry[at] & 255);
    out[34 + k] = static_cast<std::byte>(unit.signs[at]);
    high[k / 4] = static_cast<uint8_t>(high[k / 4] | unit.entry[at] >> 8 << (k % 4 * 2));
  }
  __builtin_memcpy(out + 66, high, sizeof high);
  put_nibble_scales(unit.scale, 16, out + 74);
}

inline void quantize_IQ3_XXS(const float* weights, const float* importance,
                             std::byte* out) noexcept {
  using Type = GridType<Iq3XxsValues, 256, 8, true>;
  GridUnit<Type> unit;
  fit_grid_unit<Type>(weights, importance, search_grids().iq3_xxs, kGridIq3Xxs, 0.25f, unit);
  put_u16(unit.d.bits, out);
  for (size_t s = 0; s < 8; ++s) {
    for (size_t k = 0; k < 8; ++k) {
      out[2 + s * 8 + k] = static_cast<std::byte>(unit.entry[k * 8 + s]);
    }
    put_u32(signs_and_scale(unit, s), out + 66 + s * 4);
  }
}

inline void quantize_IQ3_S(const float* weights, const float* importance, std::byte* out) noexcept {
  using Type = GridType<Iq3SValues, 512, 8, false>;
  GridUnit<Type> unit;
  fit_grid_unit<Type>(weights, importance, search_grids().iq3_s, kGridIq3S, 1.0f, unit);
  put_u16(unit.d.bits, out);
  for (size_t s = 0; s < 8; ++s) {
    unsigned high = 0;
    for (size_t k = 0; k < 8; ++k) {
      const unsigned entry = unit.entry[k * 8 + s];
      out[2 + s * 8 + k] = static_cast<std::byte>(entry & 255);
      high |= entry >> 8 << k;
    }
    out[66 + s] = static_cast<std::byte>(high);
    for (size_t k = 0; k < 4; ++k) {
      out[74 + s * 4 + k] = static_cast<std::byte>(unit.signs[k * 8 + s]);
    }
  }
  put_nibble_scales(unit.scale, 8, out + 106);
}

}  // namespace
}  // namespace edgemoe
