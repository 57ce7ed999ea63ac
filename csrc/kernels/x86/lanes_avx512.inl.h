// Sixteen lanes in one AVX-512 register (see lanes.inl.h).
#pragma once

#include "kernels/x86/intrinsics.inl.h"

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kLanes = 16;
inline constexpr size_t kFloatTileRows = 4;
inline constexpr size_t kFloatTileTokens = 4;

struct Lanes {
  __m512 value;
};

inline Lanes splat(float value) noexcept {
  return {_mm512_set1_ps(value)};
}
inline Lanes zero_lanes() noexcept {
  return {_mm512_setzero_ps()};
}

inline __m256i load_32_bytes(const void* from) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i_u*>(from));
}

inline Lanes load_f32(const void* from) noexcept {
  return {_mm512_loadu_ps(from)};
}
inline Lanes load_f16(const void* from) noexcept {
  return {_mm512_cvtph_ps(load_32_bytes(from))};
}
inline Lanes load_bf16(const void* from) noexcept {
  const __m512i wide = _mm512_cvtepu16_epi32(load_32_bytes(from));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline Lanes load_i8(const void* from) noexcept {
  const __m128i codes = _mm_loadu_si128(static_cast<const __m128i_u*>(from));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))};
}

inline void store(const Lanes& lanes, float* to) noexcept {
  _mm512_storeu_ps(to, lanes.value);
}

inline Lanes add(const Lanes& a, const Lanes& b) noexcept {
  return {_mm512_add_ps(a.value, b.value)};
}
inline Lanes multiply(const Lanes& a, const Lanes& b) noexcept {
  return {_mm512_mul_ps(a.value, b.value)};
}
inline Lanes fused_multiply_add(const Lanes& a, const Lanes& b, const Lanes& c) noexcept {
  return {_mm512_fmadd_ps(a.value, b.value, c.value)};
}
// The instruction is a > b ? a : b.
inline Lanes maximum(const Lanes& a, const Lanes& b) noexcept {
  return {_mm512_max_ps(a.value, b.value)};
}

inline float sum(const Lanes& lanes) noexcept {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(lanes.value), _mm512_extractf32x8_ps(lanes.value, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The low and the high halves of a and b, added: eight lanes of a, eight of b.
inline __m512 add_halves(__m512 a, __m512 b) noexcept {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}

// Four sums take fewer shuffles together than one by one.
inline void store_sums(const Lanes (&four)[4], float* to) noexcept {
  const __m512 first = add_halves(four[0].value, four[1].value);
  const __m512 second = add_halves(four[2].value, four[3].value);
  // Four lanes of each sum, in its 128 bits.
  const __m512 quarter = _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88),
                                       _mm512_shuffle_f32x4(first, second, 0xDD));
  const __m512 two = _mm512_add_ps(quarter, _mm512_permute_ps(quarter, 0xEE));
  const __m512 one = _mm512_add_ps(two, _mm512_movehdup_ps(two));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, one)));
}

inline float largest(const Lanes& lanes) noexcept {
  const __m256 eight =
      _mm256_max_ps(_mm512_castps512_ps256(lanes.value), _mm512_extractf32x8_ps(lanes.value, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline float float_from_half(uint16_t half) noexcept {
  return _cvtsh_ss(half);
}
inline uint16_t half_from_float(float value) noexcept {
  return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
}

}  // namespace
}  // namespace edgemoe::kernels
