// Code units of the AVX-512 level (see generic/code_unit.inl.h): two vectors, columns 0..3
// and 4..7, with 4 columns of a row in each 32-bit lane, 16 rows.
#pragma once

#include "kernels/x86/vector_512.inl.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kTileRows = 16;
inline constexpr size_t kUnitVectors = 2;

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/code_unit.inl.h"  // needs the vector

namespace edgemoe::kernels {
namespace {

// From 8 bytes a row, rows 0..7 and 8..15.
inline CodeUnit split_columns(__m512i low, __m512i high) noexcept {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  return {{_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high)}};
}

inline CodeUnit load_unit(const PackedGroups& groups, size_t offset) noexcept {
  return split_columns(_mm512_loadu_si512(groups.group[0] + offset),
                       _mm512_loadu_si512(groups.group[1] + offset));
}

inline CodeUnit unit_of_words(const uint64_t (&words)[kTileRows]) noexcept {
  const auto eight = [&words](size_t row) noexcept {
    return _mm512_set_epi64(
        static_cast<int64_t>(words[row + 7]), static_cast<int64_t>(words[row + 6]),
        static_cast<int64_t>(words[row + 5]), static_cast<int64_t>(words[row + 4]),
        static_cast<int64_t>(words[row + 3]), static_cast<int64_t>(words[row + 2]),
        static_cast<int64_t>(words[row + 1]), static_cast<int64_t>(words[row]));
  };
  return split_columns(eight(0), eight(8));
}

// The bits of 8 rows' bytes are a mask of the 64 bytes of these rows.
inline CodeUnit unit_of_bits(const PackedGroups& groups, size_t offset) noexcept {
  __mmask64 low;
  __mmask64 high;
  __builtin_memcpy(&low, groups.group[0] + offset, sizeof(low));
  __builtin_memcpy(&high, groups.group[1] + offset, sizeof(high));
  return split_columns(_mm512_movm_epi8(low), _mm512_movm_epi8(high));
}

inline __m128i load_16_bytes(const std::byte* from) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(from));
}

inline void unpack_halves(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const __m256i halves = _mm256_set_m128i(load_16_bytes(groups.group[1] + offset),
                                          load_16_bytes(groups.group[0] + offset));
  _mm512_store_ps(out, _mm512_cvtph_ps(halves));
}

// 8 bytes of each group, one a row.
inline __m128i load_row_bytes(const PackedGroups& groups, size_t offset) noexcept {
  int64_t low;
  int64_t high;
  __builtin_memcpy(&low, groups.group[0] + offset, sizeof(low));
  __builtin_memcpy(&high, groups.group[1] + offset, sizeof(high));
  return _mm_set_epi64x(high, low);
}

inline void unpack_powers(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const __m512i exponent = _mm512_cvtepu8_epi32(load_row_bytes(groups, offset));
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(exponent, _mm512_set1_epi32(1)), 23);
  const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), exponent);
  const __mmask16 is_subnormal = _mm512_cmplt_epi32_mask(exponent, _mm512_set1_epi32(2));
  _mm512_store_si512(out, _mm512_mask_mov_epi32(normal, is_subnormal, subnormal));
}

}  // namespace
}  // namespace edgemoe::kernels
