// Code units of the levels with 256-bit registers (see generic/code_unit.inl.h): two vectors, rows
// 0..3 and 4..7, with 8 columns of a row in each 64-bit lane.
#pragma once

#include "kernels/x86/intrinsics.inl.h"

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

inline constexpr bool kPermutesGrids = false;
inline constexpr bool kShiftsBytes = false;
inline constexpr size_t kTileRows = 8;

using Vector = __m256i;
inline constexpr size_t kUnitVectors = 2;

inline Vector splat_byte(uint8_t byte) noexcept {
  return _mm256_set1_epi8(static_cast<char>(byte));
}
inline Vector bit_and(Vector a, Vector b) noexcept {
  return _mm256_and_si256(a, b);
}
inline Vector bit_or(Vector a, Vector b) noexcept {
  return _mm256_or_si256(a, b);
}
inline Vector bit_xor(Vector a, Vector b) noexcept {
  return _mm256_xor_si256(a, b);
}
inline Vector add_bytes(Vector a, Vector b) noexcept {
  return _mm256_add_epi8(a, b);
}
inline Vector subtract_bytes(Vector a, Vector b) noexcept {
  return _mm256_sub_epi8(a, b);
}
template <int kBits>
Vector shift_right(Vector v) noexcept {
  return _mm256_srli_epi16(v, kBits);
}
template <int kBits>
Vector shift_left(Vector v) noexcept {
  return _mm256_slli_epi16(v, kBits);
}
inline Vector look_up(const int8_t (&table)[16], Vector v) noexcept {
  const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), v);
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/generic/code_unit.inl.h"  // needs the vector

namespace edgemoe::kernels {
namespace {

inline Vector load_32_bytes_of(const void* from) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i_u*>(from));
}

inline __m256i broadcast_8_bytes(const void* from) noexcept {
  int64_t bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return _mm256_set1_epi64x(bytes);
}

inline CodeUnit load_unit(const PackedGroups& groups, size_t offset) noexcept {
  const std::byte* unit = groups.group[0] + offset;
  return {{load_32_bytes_of(unit), load_32_bytes_of(unit + 32)}};
}

inline CodeUnit unit_of_words(const uint64_t (&words)[kTileRows]) noexcept {
  const auto four = [&words](size_t row) noexcept {
    return _mm256_set_epi64x(
        static_cast<int64_t>(words[row + 3]), static_cast<int64_t>(words[row + 2]),
        static_cast<int64_t>(words[row + 1]), static_cast<int64_t>(words[row]));
  };
  return {{four(0), four(4)}};
}

inline CodeUnit unit_of_half_words(const uint32_t (&first)[kTileRows],
                                   const uint32_t (&second)[kTileRows]) noexcept {
  const auto two = [&](size_t row) noexcept {
    return _mm_setr_epi32(static_cast<int32_t>(first[row]), static_cast<int32_t>(second[row]),
                          static_cast<int32_t>(first[row + 1]),
                          static_cast<int32_t>(second[row + 1]));
  };
  return {{_mm256_set_m128i(two(2), two(0)), _mm256_set_m128i(two(6), two(4))}};
}

inline CodeUnit unit_of_bits(const PackedGroups& groups, size_t offset) noexcept {
  int64_t bytes;
  __builtin_memcpy(&bytes, groups.group[0] + offset, sizeof(bytes));
  const __m256i all = _mm256_set1_epi64x(bytes);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const auto four = [&](__m256i rows) noexcept {
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, rows), bit), bit);
  };
  const __m256i first =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  return {{four(first), four(_mm256_add_epi8(first, _mm256_set1_epi8(4)))}};
}

inline CodeUnit signed_values(const CodeUnit& values, const PackedGroups& groups, size_t offset,
                              uint8_t bias) noexcept {
  return signed_values(values, unit_of_bits(groups, offset), bias);
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
  const __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponent);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out),
                     _mm256_blendv_epi8(normal, subnormal, is_subnormal));
}

}  // namespace
}  // namespace edgemoe::kernels
