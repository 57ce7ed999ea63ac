// Code units of the AVX-512 level (see generic/code_unit.inl.h): a tile is two halves of 16 rows; a
// vector has 4 columns of each row of a half in its 32-bit lanes. Vectors 0 and 1 of a unit are
// columns 0..3 and 4..7 of the first half, 2 and 3 those of the second.
#pragma once

#include "kernels/x86/vector_512.inl.h"

namespace edgemoe::kernels {
namespace {

inline constexpr bool kPermutesGrids = false;
inline constexpr bool kShiftsBytes = false;
inline constexpr size_t kTileRows = 32;
inline constexpr size_t kHalfRows = 16;
inline constexpr size_t kUnitVectors = 4;

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/code_unit.inl.h"  // needs the vector

namespace edgemoe::kernels {
namespace {

// From 8 bytes a row: part(g) has the 8 rows of group g.
template <class Part>
CodeUnit split_columns(Part part) noexcept {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  CodeUnit unit;
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; ++half) {
    const __m512i low = part(2 * half);
    const __m512i high = part(2 * half + 1);
    unit.part[2 * half] = _mm512_permutex2var_epi32(low, even, high);
    unit.part[2 * half + 1] = _mm512_permutex2var_epi32(low, odd, high);
  }
  return unit;
}

inline CodeUnit load_unit(const PackedGroups& groups, size_t offset) noexcept {
  return split_columns(
      [&](size_t g) noexcept { return _mm512_loadu_si512(groups.group[g] + offset); });
}

inline CodeUnit unit_of_words(const uint64_t (&words)[kTileRows]) noexcept {
  return split_columns(
      [&](size_t g) noexcept { return _mm512_loadu_si512(words + g * kRowGroup); });
}

inline CodeUnit unit_of_half_words(const uint32_t (&first)[kTileRows],
                                   const uint32_t (&second)[kTileRows]) noexcept {
  return {{_mm512_loadu_si512(first), _mm512_loadu_si512(second),
           _mm512_loadu_si512(first + kHalfRows), _mm512_loadu_si512(second + kHalfRows)}};
}

// The bits of 8 rows' bytes are a mask of the 64 bytes of these rows.
inline CodeUnit unit_of_bits(const PackedGroups& groups, size_t offset) noexcept {
  return split_columns([&](size_t g) noexcept {
    __mmask64 mask;
    __builtin_memcpy(&mask, groups.group[g] + offset, sizeof(mask));
    return _mm512_movm_epi8(mask);
  });
}

inline CodeUnit signed_values(const CodeUnit& values, const PackedGroups& groups, size_t offset,
                              uint8_t bias) noexcept {
  return signed_values(values, unit_of_bits(groups, offset), bias);
}

inline __m128i load_16_bytes(const std::byte* from) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(from));
}

inline void unpack_halves(const PackedGroups& groups, size_t offset, float* out) noexcept {
  for (size_t g = 0; g < kTileGroups; g += 2) {
    const __m256i halves = _mm256_set_m128i(load_16_bytes(groups.group[g + 1] + offset),
                                            load_16_bytes(groups.group[g] + offset));
    _mm512_store_ps(out + g * kRowGroup, _mm512_cvtph_ps(halves));
  }
}

// 8 bytes of groups `first` and `first` + 1, one a row.
inline __m128i load_row_bytes(const PackedGroups& groups, size_t first, size_t offset) noexcept {
  int64_t low;
  int64_t high;
  __builtin_memcpy(&low, groups.group[first] + offset, sizeof(low));
  __builtin_memcpy(&high, groups.group[first + 1] + offset, sizeof(high));
  return _mm_set_epi64x(high, low);
}

inline void unpack_powers(const PackedGroups& groups, size_t offset, float* out) noexcept {
  for (size_t g = 0; g < kTileGroups; g += 2) {
    const __m512i exponent = _mm512_cvtepu8_epi32(load_row_bytes(groups, g, offset));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(exponent, _mm512_set1_epi32(1)), 23);
    const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), exponent);
    const __mmask16 is_subnormal = _mm512_cmplt_epi32_mask(exponent, _mm512_set1_epi32(2));
    _mm512_store_si512(out + g * kRowGroup, _mm512_mask_mov_epi32(normal, is_subnormal, subnormal));
  }
}

}  // namespace
}  // namespace edgemoe::kernels
