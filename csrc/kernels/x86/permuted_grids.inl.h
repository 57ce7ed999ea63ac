// Grids with entries of 4 values in registers: an entry is a 16-bit word of nibbles, the
// permutation of a pair of registers looks up 32 words of 64 entries, and larger grids choose
// between several of them. Grids with entries of 8 values would need more registers for each byte
// of weights; loads are faster. The file that includes this one last has brought a code unit of 8
// rows in one register.
#pragma once

#include "kernels/generic/code_unit.inl.h"

namespace edgemoe::kernels {
namespace {

// Entry `index` modulo kEntries of the table, for each word.
template <size_t kEntries>
[[gnu::always_inline]] inline __m512i permuted_words(const uint16_t* table,
                                                     __m512i index) noexcept {
  if constexpr (kEntries == 64) {
    return _mm512_permutex2var_epi16(_mm512_load_si512(table), index,
                                     _mm512_load_si512(table + 32));
  } else {
    const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(kEntries / 2));
    return _mm512_mask_blend_epi16(upper, permuted_words<kEntries / 2>(table, index),
                                   permuted_words<kEntries / 2>(table + kEntries / 2, index));
  }
}

inline __m512i widened_32_bytes(const uint8_t* from) noexcept {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(from)));
}

// Of 8 rows with a byte each: bit kFirst + e of the row's byte for word 8 * e + row.
template <int kFirst>
__mmask32 bits_of_entries(const uint8_t* bytes) noexcept {
  int64_t rows;
  __builtin_memcpy(&rows, bytes, sizeof(rows));
  constexpr int64_t kBit = 0x0001'0001'0001'0001 << kFirst;
  const __m512i bit = _mm512_setr_epi64(kBit, kBit, kBit << 1, kBit << 1, kBit << 2, kBit << 2,
                                        kBit << 3, kBit << 3);
  return _mm512_test_epi16_mask(_mm512_cvtepu8_epi16(_mm256_set1_epi64x(rows)), bit);
}

// Words of nibbles, the lowest first, as 4 bytes each. Word 8 * e + row is entry e of 4.
inline CodeUnitPair units_of_nibbles(__m512i words, const int8_t (&values)[16]) noexcept {
  // Rows 2i and 2i + 1 to 128-bit lane i: entries 0 and 1 of both, then 2 and 3.
  const __m512i order =
      _mm512_add_epi16(_mm512_set1_epi64(0x0009'0001'0008'0000),
                       _mm512_setr_epi64(0, 0x0010001000100010, 0x0002000200020002,
                                         0x0012001200120012, 0x0004000400040004, 0x0014001400140014,
                                         0x0006000600060006, 0x0016001600160016));
  words = _mm512_permutexvar_epi16(order, words);
  const __m512i even = look_up(values, bit_and(words, splat_byte(15)));
  const __m512i odd = look_up(values, bit_and(shift_right<4>(words), splat_byte(15)));
  return {{{_mm512_unpacklo_epi8(even, odd)}}, {{_mm512_unpackhi_epi8(even, odd)}}};
}

// 4 entries of 4 values: `low` has the low 8 bits of their indices, 8 rows of each.
template <class Grid>
CodeUnitPair permuted_units(const Grid& grid, const uint8_t* low) noexcept {
  return units_of_nibbles(permuted_words<256>(grid.words, widened_32_bytes(low)), grid.values);
}
// And bit kFirst + e of a row's byte at `top` is the ninth bit of entry e.
template <int kFirst, class Grid>
CodeUnitPair permuted_units(const Grid& grid, const uint8_t* low, const uint8_t* top) noexcept {
  const __m512i index = widened_32_bytes(low);
  const __m512i words =
      _mm512_mask_blend_epi16(bits_of_entries<kFirst>(top), permuted_words<256>(grid.words, index),
                              permuted_words<256>(grid.words + 256, index));
  return units_of_nibbles(words, grid.values);
}

}  // namespace
}  // namespace edgemoe::kernels
