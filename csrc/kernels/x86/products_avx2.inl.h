// The integer products of the AVX2 level.
//
//   kTileBias<Format>    what the codes carry
//   stored_codes<Format>(codes), stored_scales(bytes)      as a tile keeps them, 4 rows
//   kUnitsPerSum<Format>                  so many units may be added before they meet the scale
//   Codes<Format>, add_products<Format>(products, codes, x)  adds codes * activations of a unit
//   scaled<Format>(products, scale), widened(products)     two 32-bit parts a row
//
// vpmaddubsw multiplies unsigned by signed bytes and adds two products with saturation at 16 bits,
// so there are two ways to stay exact:
//   - unsigned codes (kSigned false), with a bias that is taken off again through the sums of the
//     activations. 8 products of codes up to 32 are at most 8 * 32 * 127 = 32512, as are 4 of codes
//     up to 64 and 2 of codes up to 128.
//   - any int8 code (kSigned true): |code| * (sign of the code * activation). A sum of 2 products
//     is at most 2 * 128 * 127 = 32512.
#pragma once

#include "kernels/x86/vector_avx2.inl.h"

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr int kTileBias = Format::kBias;

template <class Format>
__m256i stored_codes(__m256i codes) noexcept {
  return codes;
}

// In each of the four 16-bit parts of a lane.
inline __m256i stored_scales(const int8_t* rows) noexcept {
  const __m256i low_word = _mm256_set1_epi32(0x01000100);
  const __m256i row = _mm256_setr_epi64x(0, 0x0808080808080808, 0, 0x0808080808080808);
  return _mm256_shuffle_epi8(_mm256_cvtepi8_epi64(_mm_loadu_si32(rows)),
                             _mm256_or_si256(low_word, row));
}

// A 16-bit part holds the sum of so many units without saturation: each adds two products.
template <class Format>
inline constexpr size_t kUnitsPerSum = Format::kMaxCode <= 32   ? 4
                                       : Format::kMaxCode <= 64 ? 2
                                                                : 1;

template <class Format>
struct Codes {
  __m256i value;
  __m256i magnitude;
  explicit Codes(__m256i codes) noexcept
      : value(codes), magnitude(Format::kSigned ? _mm256_abs_epi8(codes) : codes) {}
};

template <class Format>
__m256i add_products(__m256i products, const Codes<Format>& codes, __m256i x) noexcept {
  if constexpr (Format::kSigned) x = _mm256_sign_epi8(x, codes.value);
  return _mm256_add_epi16(products, _mm256_maddubs_epi16(codes.magnitude, x));
}

template <class Format>
__m256i scaled(__m256i products, __m256i scale) noexcept {
  return _mm256_madd_epi16(products, Format::kScaled ? scale : _mm256_set1_epi16(1));
}

// Two 32-bit parts a row.
inline __m256i widened(__m256i products) noexcept {
  return _mm256_madd_epi16(products, _mm256_set1_epi16(1));
}

}  // namespace
}  // namespace edgemoe::kernels
