// Sixteen lanes in two AVX2 registers (see lanes.inl.h).
#pragma once

#include "kernels/x86/intrinsics.inl.h"

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kLanes = 16;
inline constexpr size_t kFloatTileRows = 2;
inline constexpr size_t kFloatTileTokens = 2;

struct Lanes {
  __m256 low;   // lanes 0..7
  __m256 high;  // lanes 8..15
};

inline Lanes splat(float value) noexcept {
  return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
}
inline Lanes zero_lanes() noexcept {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}

inline __m128i load_16_bytes(const void* from) noexcept {
  return _mm_loadu_si128(static_cast<const __m128i_u*>(from));
}

inline Lanes load_f32(const void* from) noexcept {
  const float* x = static_cast<const float*>(from);
  return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)};
}

inline Lanes load_f16(const void* from) noexcept {
  const char* bytes = static_cast<const char*>(from);
  return {_mm256_cvtph_ps(load_16_bytes(bytes)), _mm256_cvtph_ps(load_16_bytes(bytes + 16))};
}

inline __m256 widen_bf16(__m128i values) noexcept {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(values), 16));
}
inline Lanes load_bf16(const void* from) noexcept {
  const char* bytes = static_cast<const char*>(from);
  return {widen_bf16(load_16_bytes(bytes)), widen_bf16(load_16_bytes(bytes + 16))};
}

inline Lanes load_i8(const void* from) noexcept {
  const __m128i codes = load_16_bytes(from);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)))};
}

inline void store(const Lanes& lanes, float* to) noexcept {
  _mm256_storeu_ps(to, lanes.low);
  _mm256_storeu_ps(to + 8, lanes.high);
}

inline Lanes add(const Lanes& a, const Lanes& b) noexcept {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Lanes multiply(const Lanes& a, const Lanes& b) noexcept {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Lanes fused_multiply_add(const Lanes& a, const Lanes& b, const Lanes& c) noexcept {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
// The instruction is a > b ? a : b.
inline Lanes maximum(const Lanes& a, const Lanes& b) noexcept {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

inline float sum(const Lanes& lanes) noexcept {
  const __m256 eight = _mm256_add_ps(lanes.low, lanes.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The low and the high halves of a and b, added: four lanes of a, four of b.
inline __m256 add_halves(__m256 a, __m256 b) noexcept {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// Four sums take fewer shuffles together than one by one.
inline void store_sums(const Lanes (&four)[4], float* to) noexcept {
  __m256 eight[4];
  for (int i = 0; i < 4; ++i) eight[i] = _mm256_add_ps(four[i].low, four[i].high);
  const __m256 first = add_halves(eight[0], eight[1]);
  const __m256 second = add_halves(eight[2], eight[3]);
  // Two lanes each of sums 0 and 2 in the low half, 1 and 3 in the high half.
  const __m256 two =
      _mm256_add_ps(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xEE));
  const __m256 one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
  const __m128 odd = _mm_moveldup_ps(_mm256_extractf128_ps(one, 1));
  _mm_storeu_ps(to, _mm_blend_ps(_mm256_castps256_ps128(one), odd, 0b1010));
}

inline float largest(const Lanes& lanes) noexcept {
  const __m256 eight = _mm256_max_ps(lanes.low, lanes.high);
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
