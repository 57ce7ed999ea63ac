// Code units of the ARM levels (see generic/code_unit.inl.h): 8 rows in four registers. The file
// that includes this one has defined kSplitColumns:
//
//   false  rows 2i and 2i + 1, 8 columns each
//   true   rows 0..3 and 4..7 with columns 0..3 each, then the same with columns 4..7
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

inline constexpr bool kPermutesGrids = false;
inline constexpr bool kShiftsBytes = true;
inline constexpr size_t kTileRows = 8;

using Vector = uint8x16_t;
inline constexpr size_t kUnitVectors = 4;

inline Vector splat_byte(uint8_t byte) noexcept {
  return vdupq_n_u8(byte);
}
inline Vector bit_and(Vector a, Vector b) noexcept {
  return vandq_u8(a, b);
}
inline Vector bit_or(Vector a, Vector b) noexcept {
  return vorrq_u8(a, b);
}
inline Vector bit_xor(Vector a, Vector b) noexcept {
  return veorq_u8(a, b);
}
inline Vector add_bytes(Vector a, Vector b) noexcept {
  return vaddq_u8(a, b);
}
inline Vector subtract_bytes(Vector a, Vector b) noexcept {
  return vsubq_u8(a, b);
}
template <int kBits>
Vector shift_right(Vector v) noexcept {
  return vshrq_n_u8(v, kBits);
}
template <int kBits>
Vector shift_left(Vector v) noexcept {
  return vshlq_n_u8(v, kBits);
}
inline Vector look_up(const int8_t (&table)[16], Vector v) noexcept {
  return vreinterpretq_u8_s8(vqtbl1q_s8(vld1q_s8(table), v));
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/code_unit.inl.h"  // needs the vector

namespace edgemoe::kernels {
namespace {

inline Vector even_words(Vector a, Vector b) noexcept {
  return vreinterpretq_u8_u32(vuzp1q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}
inline Vector odd_words(Vector a, Vector b) noexcept {
  return vreinterpretq_u8_u32(vuzp2q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
}

// From 8 bytes of each of two rows.
inline CodeUnit unit_of_row_pairs(const Vector (&pair)[4]) noexcept {
  if constexpr (!kSplitColumns) return {{pair[0], pair[1], pair[2], pair[3]}};
  return {{even_words(pair[0], pair[1]), even_words(pair[2], pair[3]), odd_words(pair[0], pair[1]),
           odd_words(pair[2], pair[3])}};
}

inline CodeUnit load_unit(const PackedGroups& groups, size_t offset) noexcept {
  const uint8_t* unit = field_of(groups, 0, offset);
  return unit_of_row_pairs(
      {vld1q_u8(unit), vld1q_u8(unit + 16), vld1q_u8(unit + 32), vld1q_u8(unit + 48)});
}

inline CodeUnit unit_of_words(const uint64_t (&words)[kTileRows]) noexcept {
  const auto pair = [&words](size_t row) noexcept {
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(words[row]), vcreate_u64(words[row + 1])));
  };
  return unit_of_row_pairs({pair(0), pair(2), pair(4), pair(6)});
}

inline CodeUnit unit_of_half_words(const uint32_t (&first)[kTileRows],
                                   const uint32_t (&second)[kTileRows]) noexcept {
  const auto pair = [&](size_t row) noexcept {
    const uint32x4_t words = {first[row], second[row], first[row + 1], second[row + 1]};
    return vreinterpretq_u8_u32(words);
  };
  return unit_of_row_pairs({pair(0), pair(2), pair(4), pair(6)});
}

inline CodeUnit unit_of_bits(const PackedGroups& groups, size_t offset) noexcept {
  const uint8x8_t rows = vld1_u8(field_of(groups, 0, offset));
  const uint8x16_t all = vcombine_u8(rows, rows);
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  const uint8x16_t first = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
  const auto pair = [&](uint8_t row) noexcept {
    return vtstq_u8(vqtbl1q_u8(all, vaddq_u8(first, vdupq_n_u8(row))), bit);
  };
  return unit_of_row_pairs({pair(0), pair(2), pair(4), pair(6)});
}

inline CodeUnit signed_values(const CodeUnit& values, const PackedGroups& groups, size_t offset,
                              uint8_t bias) noexcept {
  return signed_values(values, unit_of_bits(groups, offset), bias);
}

inline void unpack_halves(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const uint8_t* halves = field_of(groups, 0, offset);
  vst1q_f32(out, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves))));
  vst1q_f32(out + 4, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves + 8))));
}

inline uint32x4_t powers(uint32x4_t exponent) noexcept {
  const uint32x4_t normal = vshlq_n_u32(vsubq_u32(exponent, vdupq_n_u32(1)), 23);
  const uint32x4_t subnormal = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(exponent));
  return vbslq_u32(vcltq_u32(exponent, vdupq_n_u32(2)), subnormal, normal);
}
inline void unpack_powers(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const uint16x8_t exponents = vmovl_u8(vld1_u8(field_of(groups, 0, offset)));
  vst1q_f32(out, vreinterpretq_f32_u32(powers(vmovl_u16(vget_low_u16(exponents)))));
  vst1q_f32(out + 4, vreinterpretq_f32_u32(powers(vmovl_u16(vget_high_u16(exponents)))));
}

}  // namespace
}  // namespace edgemoe::kernels
