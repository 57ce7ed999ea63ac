// Code units of the AVX-512 products with one token (see generic/code_unit.inl.h): one register
// with 8 columns of a row in each 64-bit lane.
#pragma once

#include "kernels/x86/vector_512.inl.h"

namespace edgemoe::kernels {
namespace {

inline constexpr bool kPermutesGrids = true;
inline constexpr bool kShiftsBytes = false;
inline constexpr size_t kTileRows = 8;
inline constexpr size_t kUnitVectors = 1;

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/code_unit.inl.h"  // needs the vector

namespace edgemoe::kernels {
namespace {

inline CodeUnit load_unit(const PackedGroups& groups, size_t offset) noexcept {
  return {{_mm512_loadu_si512(groups.group[0] + offset)}};
}

inline CodeUnit unit_of_words(const uint64_t (&words)[kTileRows]) noexcept {
  return {{_mm512_set_epi64(static_cast<int64_t>(words[7]), static_cast<int64_t>(words[6]),
                            static_cast<int64_t>(words[5]), static_cast<int64_t>(words[4]),
                            static_cast<int64_t>(words[3]), static_cast<int64_t>(words[2]),
                            static_cast<int64_t>(words[1]), static_cast<int64_t>(words[0]))}};
}

inline CodeUnit unit_of_half_words(const uint32_t (&first)[kTileRows],
                                   const uint32_t (&second)[kTileRows]) noexcept {
  const auto two = [&](size_t row) noexcept {
    return _mm_setr_epi32(static_cast<int32_t>(first[row]), static_cast<int32_t>(second[row]),
                          static_cast<int32_t>(first[row + 1]),
                          static_cast<int32_t>(second[row + 1]));
  };
  return {{_mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(two(2), two(0))),
                              _mm256_set_m128i(two(6), two(4)), 1)}};
}

// The bits of 8 rows' bytes are a mask of the 64 bytes of these rows.
inline __mmask64 mask_of_bits(const PackedGroups& groups, size_t offset) noexcept {
  __mmask64 mask;
  __builtin_memcpy(&mask, groups.group[0] + offset, sizeof(mask));
  return mask;
}

inline CodeUnit unit_of_bits(const PackedGroups& groups, size_t offset) noexcept {
  return {{_mm512_movm_epi8(mask_of_bits(groups, offset))}};
}

inline CodeUnit signed_values(const CodeUnit& values, const PackedGroups& groups, size_t offset,
                              uint8_t bias) noexcept {
  const Vector v = values.part[0];
  return {{_mm512_mask_sub_epi8(add_bytes(v, splat_byte(bias)), mask_of_bits(groups, offset),
                                splat_byte(bias), v)}};
}

inline void unpack_halves(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const auto* from = reinterpret_cast<const __m128i_u*>(groups.group[0] + offset);
  _mm256_store_ps(out, _mm256_cvtph_ps(_mm_loadu_si128(from)));
}

inline void unpack_powers(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const auto* from = reinterpret_cast<const __m128i_u*>(groups.group[0] + offset);
  const __m256i exponent = _mm256_cvtepu8_epi32(_mm_loadu_si64(from));
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(exponent, _mm256_set1_epi32(1)), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), exponent);
  const __mmask8 is_subnormal = _mm256_cmplt_epi32_mask(exponent, _mm256_set1_epi32(2));
  _mm256_store_si256(reinterpret_cast<__m256i*>(out),
                     _mm256_mask_mov_epi32(normal, is_subnormal, subnormal));
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/permuted_grids.inl.h"  // needs the above
