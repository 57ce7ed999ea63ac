// Operations on 64 bytes (see generic/code_unit.inl.h).
#pragma once

#include "kernels/x86/intrinsics.inl.h"

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

using Vector = __m512i;

inline Vector splat_byte(uint8_t byte) noexcept {
  return _mm512_set1_epi8(static_cast<char>(byte));
}
inline Vector bit_and(Vector a, Vector b) noexcept {
  return _mm512_and_si512(a, b);
}
inline Vector bit_or(Vector a, Vector b) noexcept {
  return _mm512_or_si512(a, b);
}
inline Vector bit_xor(Vector a, Vector b) noexcept {
  return _mm512_xor_si512(a, b);
}
inline Vector add_bytes(Vector a, Vector b) noexcept {
  return _mm512_add_epi8(a, b);
}
inline Vector subtract_bytes(Vector a, Vector b) noexcept {
  return _mm512_sub_epi8(a, b);
}
template <int kBits>
Vector shift_right(Vector v) noexcept {
  return _mm512_srli_epi16(v, kBits);
}
template <int kBits>
Vector shift_left(Vector v) noexcept {
  return _mm512_slli_epi16(v, kBits);
}
inline Vector look_up(const int8_t (&table)[16], Vector v) noexcept {
  const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), v);
}

}  // namespace
}  // namespace edgemoe::kernels
