// Unpacking of the IQ types with code books: a code picks 8 or 4 values of a grid, signs are apart.
// Grids are read row by row; the rest is as in formats_k.inl.h, and so are the drawings. "Words"
// are units whose 8 bytes a row belong together.
#pragma once

#include "kernels/generic/formats_k.inl.h"
#include "quant/codebooks.h"

namespace edgemoe::kernels {
namespace {

// Seven stored signs; the eighth makes their number even. Byte c of a mask is 0xFF where the sign
// of column c is negative.
struct ParitySigns {
  uint64_t mask[128];
};
constexpr ParitySigns make_parity_signs() noexcept {
  ParitySigns out{};
  for (uint32_t signs = 0; signs < 128; ++signs) {
    uint32_t count = 0;
    for (uint32_t c = 0; c < 8; ++c) {
      const bool negative = c < 7 ? (signs >> c & 1) != 0 : count % 2 == 1;
      count += negative;
      if (negative) out.mask[signs] |= uint64_t{0xFF} << (8 * c);
    }
  }
  return out;
}
inline constexpr ParitySigns kParitySigns = make_parity_signs();

struct RowWords {
  uint64_t word[kTileRows];
};

// function(row) for every row of the tile.
template <class Function>
RowWords row_words(Function function) noexcept {
  RowWords out;
#pragma GCC unroll 16
  for (size_t row = 0; row < kTileRows; ++row) out.word[row] = function(row);
  return out;
}

template <class Word>
Word load_word(const PackedGroups& groups, size_t offset, size_t row) noexcept {
  Word word;
  __builtin_memcpy(&word, groups.group[row / kRowGroup] + offset + row % kRowGroup * sizeof(Word),
                   sizeof(Word));
  return word;
}
inline RowWords load_words(const PackedGroups& groups, size_t offset) noexcept {
  return row_words([&](size_t row) noexcept { return load_word<uint64_t>(groups, offset, row); });
}

inline uint64_t grid_of_8(const int8_t* grid, uint64_t entry) noexcept {
  uint64_t values;
  __builtin_memcpy(&values, grid + entry * 8, sizeof(values));
  return values;
}
// Two entries of 4.
inline uint64_t grid_of_4(const int8_t* grid, uint64_t first, uint64_t second) noexcept {
  uint32_t low;
  uint32_t high;
  __builtin_memcpy(&low, grid + first * 4, sizeof(low));
  __builtin_memcpy(&high, grid + second * 4, sizeof(high));
  return low | uint64_t{high} << 32;
}

// Scales of 2s + 1 parts: s is a nibble, the low one of a byte first.
inline void unpack_odd_nibbles(const PackedGroups& groups, size_t offset, size_t num_bytes,
                               FoldTile& tile) noexcept {
  for (size_t g = 0; g < kTileGroups; ++g) {
    const uint8_t* nibbles = field_of(groups, g, offset);
    for (size_t i = 0; i < num_bytes; ++i) {
      int8_t* scale = tile.bytes.scale[g] + i * 2 * kRowGroup;
      for (size_t row = 0; row < kRowGroup; ++row) {
        const uint8_t both = nibbles[i * kRowGroup + row];
        scale[row] = static_cast<int8_t>(2 * (both & 15) + 1);
        scale[row + kRowGroup] = static_cast<int8_t>(2 * (both >> 4) + 1);
      }
    }
  }
}

inline void set_odd_scale(size_t span, size_t row, uint64_t s, FoldTile& tile) noexcept {
  tile.bytes.scale[row / kRowGroup][span * kRowGroup + row % kRowGroup] =
      static_cast<int8_t>(2 * s + 1);
}

// d is the stored scale times `factor`, a power of two.
inline void unpack_scaled_halves(const PackedGroups& groups, float factor,
                                 FoldTile& tile) noexcept {
  unpack_halves(groups, 0, tile.d);
  for (float& d : tile.d) d *= factor;
}

template <class Format>
[[gnu::always_inline]] inline void store_signed(const RowWords& values, const CodeUnit& negative,
                                                size_t unit, FoldTile& tile) noexcept {
  const CodeUnit codes = signed_values(unit_of_words(values.word), negative, Format::kBias);
  store_codes<Format>(codes, unit, tile);
}

inline CodeUnit parity_signs(const RowWords& words, size_t shift) noexcept {
  const RowWords masks = row_words(
      [&](size_t row) noexcept { return kParitySigns.mask[words.word[row] >> shift & 127]; });
  return unit_of_words(masks.word);
}

// 8 x 2: d | 8 words of 32 columns: 4 bytes pick a grid entry each, then 4 x 7 signs and a 4-bit
// scale
struct IQ2_XXSFormat : Block256<QuantType::kIQ2_XXS, 66, 32> {
  static constexpr int kBias = 43;
  static constexpr int kMaxCode = 86;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.125f, tile);
    for (size_t span = 0; span < 8; ++span) {
      const RowWords words = load_words(groups, 16 + span * 64);
      for (size_t row = 0; row < kTileRows; ++row) {
        set_odd_scale(span, row, words.word[row] >> 60, tile);
      }
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const RowWords values = row_words([&](size_t row) noexcept {
          return grid_of_8(kGridIq2Xxs, words.word[row] >> (8 * k) & 255);
        });
        store_signed<IQ2_XXSFormat>(values, parity_signs(words, 32 + 7 * k), span * 4 + k, tile);
      }
    }
  }
};

// 8 x 2: d | 8 x 8 x 1: odd nibbles | 8 words: 4 times 9 bits that pick a grid entry and 7 signs
struct IQ2_XSFormat : Block256<QuantType::kIQ2_XS, 74, 16> {
  static constexpr int kBias = 43;
  static constexpr int kMaxCode = 86;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.125f, tile);
    unpack_odd_nibbles(groups, 16, 8, tile);
    for (size_t part = 0; part < 8; ++part) {
      const RowWords words = load_words(groups, 80 + part * 64);
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const RowWords values = row_words([&](size_t row) noexcept {
          return grid_of_8(kGridIq2Xs, words.word[row] >> (16 * k) & 511);
        });
        store_signed<IQ2_XSFormat>(values, parity_signs(words, 16 * k + 9), part * 4 + k, tile);
      }
    }
  }
};

// 8 x 2: d | 8 x 8 x 1: odd nibbles | 32 x 8 x 1: signs of a column unit | 1 word: top 2 bits of
// the entries | 4 words: low 8 bits of the entries
struct IQ2_SFormat : Block256<QuantType::kIQ2_S, 82, 16> {
  static constexpr int kBias = 43;
  static constexpr int kMaxCode = 86;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.125f, tile);
    unpack_odd_nibbles(groups, 16, 8, tile);
    const RowWords high = load_words(groups, 336);
    for (size_t part = 0; part < 4; ++part) {
      const RowWords low = load_words(groups, 400 + part * 64);
#pragma GCC unroll 8
      for (size_t k = 0; k < 8; ++k) {
        const size_t unit = part * 8 + k;
        const RowWords values = row_words([&](size_t row) noexcept {
          const uint64_t top = high.word[row] >> (2 * unit) & 3;
          return grid_of_8(kGridIq2S, (low.word[row] >> (8 * k) & 255) | top << 8);
        });
        store_signed<IQ2_SFormat>(values, unit_of_bits(groups, 80 + unit * 8), unit, tile);
      }
    }
  }
};

// 8 x 2: d | 8 x 8 x 4: 4 x 7 signs and a 4-bit scale of 32 columns | 8 words: entries of 4 values
struct IQ3_XXSFormat : Block256<QuantType::kIQ3_XXS, 98, 32> {
  static constexpr int kBias = 62;
  static constexpr int kMaxCode = 124;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.25f, tile);
    for (size_t span = 0; span < 8; ++span) {
      const RowWords entries = load_words(groups, 272 + span * 64);
      const RowWords signs = row_words([&](size_t row) noexcept {
        return uint64_t{load_word<uint32_t>(groups, 16 + span * 32, row)};
      });
      for (size_t row = 0; row < kTileRows; ++row) {
        set_odd_scale(span, row, signs.word[row] >> 28, tile);
      }
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const RowWords values = row_words([&](size_t row) noexcept {
          const uint64_t pair = entries.word[row] >> (16 * k);
          return grid_of_4(kGridIq3Xxs, pair & 255, pair >> 8 & 255);
        });
        store_signed<IQ3_XXSFormat>(values, parity_signs(signs, 7 * k), span * 4 + k, tile);
      }
    }
  }
};

// 8 x 2: d | 4 x 8 x 1: odd nibbles | 32 x 8 x 1: signs of a column unit | 1 word: top bit of the
// entries | 8 words: low 8 bits of the entries, of 4 values
struct IQ3_SFormat : Block256<QuantType::kIQ3_S, 110, 32> {
  static constexpr int kBias = 15;
  static constexpr int kMaxCode = 30;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 1.0f, tile);
    unpack_odd_nibbles(groups, 16, 4, tile);
    const RowWords high = load_words(groups, 304);
    for (size_t span = 0; span < 8; ++span) {
      const RowWords low = load_words(groups, 368 + span * 64);
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const size_t unit = span * 4 + k;
        const RowWords values = row_words([&](size_t row) noexcept {
          const uint64_t pair = low.word[row] >> (16 * k);
          const uint64_t top = high.word[row] >> (2 * unit);
          return grid_of_4(kGridIq3S, (pair & 255) | (top & 1) << 8,
                           (pair >> 8 & 255) | (top & 2) << 7);
        });
        store_signed<IQ3_SFormat>(values, unit_of_bits(groups, 48 + unit * 8), unit, tile);
      }
    }
  }
};

}  // namespace
}  // namespace edgemoe::kernels
