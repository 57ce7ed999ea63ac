// Unpacking of the IQ types with code books: a code picks 8 or 4 values of a grid, signs are apart.
// Indices and signs are computed for 8 rows at a time, and only then looked up row by row, or 32
// entries at a time where a level keeps small grids in registers. The drawings are as in
// formats_k.inl.h.
#pragma once

#include "kernels/generic/formats_k.inl.h"
#include "quant/codebooks.h"
#include "quant/value_tables.h"

namespace edgemoe::kernels {
namespace {

// Bytes of a tile's row groups that are computed before they are used: entry after entry of 8 rows,
// as fields of units of 1 lie in memory.
template <class Number, size_t kEntries>
struct RowFields {
  alignas(64) Number of[kTileGroups][kEntries * kRowGroup];

  // As if they were packed.
  PackedGroups groups() const noexcept {
    PackedGroups out;
    for (size_t g = 0; g < kTileGroups; ++g) {
      out.group[g] = reinterpret_cast<const std::byte*>(of[g]);
    }
    return out;
  }
};

// A byte for the signs of each column unit and row.
using SignBytes = RowFields<uint8_t, kMaxFold / kUnitColumns>;

// Four 64-bit numbers of a byte for each row.
using FourRowBytes [[gnu::vector_size(32)]] = uint64_t;

inline FourRowBytes load_four(const uint8_t* from) noexcept {
  FourRowBytes out;
  __builtin_memcpy(&out, from, sizeof(out));
  return out;
}
constexpr uint64_t in_all_rows(uint8_t byte) noexcept {
  return byte * 0x0101010101010101u;
}

// Seven signs of a row are stored; the eighth makes their number even.
inline FourRowBytes with_parity_signs(FourRowBytes seven) noexcept {
  FourRowBytes parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | (parity & in_all_rows(1)) << 7;
}

inline uint8_t with_parity_sign(uint8_t seven) noexcept {
  const auto by_4 = static_cast<uint8_t>(seven ^ seven >> 4);
  const auto by_2 = static_cast<uint8_t>(by_4 ^ by_4 >> 2);
  return static_cast<uint8_t>(seven | (by_2 ^ by_2 >> 1) << 7);
}

// 4 x 8 x 1: bits 7k to 7k + 6 of a row's 32 are the signs of its column unit k, the others a scale
// s of 2s + 1 parts. What the shifts take from other rows is masked out.
[[gnu::always_inline]] inline void unpack_seven_signs(const uint8_t* bytes, uint8_t* signs,
                                                      int8_t* scale) noexcept {
  constexpr FourRowBytes kUp = {0, 1, 2, 3};
  constexpr FourRowBytes kUpMask = {in_all_rows(0x7F), in_all_rows(0x7E), in_all_rows(0x7C),
                                    in_all_rows(0x78)};
  constexpr FourRowBytes kDown = {0, 7, 6, 5};
  constexpr FourRowBytes kDownMask = {0, in_all_rows(1), in_all_rows(3), in_all_rows(7)};
  const FourRowBytes own = load_four(bytes);
  const FourRowBytes before = load_four(bytes - kRowGroup);
  const FourRowBytes seven = (own << kUp & kUpMask) | (before >> kDown & kDownMask);
  const FourRowBytes eight = with_parity_signs(seven);
  __builtin_memcpy(signs, &eight, sizeof(eight));
  uint64_t last;
  __builtin_memcpy(&last, bytes + 3 * kRowGroup, sizeof(last));
  last = (last >> 3 & in_all_rows(0x1E)) | in_all_rows(1);
  __builtin_memcpy(scale, &last, sizeof(last));
}

// Those of 8 spans of 32 columns, each `stride` bytes after the one before.
[[gnu::always_inline]] inline void unpack_sign_words(const PackedGroups& groups, size_t offset,
                                                     size_t stride, SignBytes& signs,
                                                     FoldTile& tile) noexcept {
  for (size_t g = 0; g < kTileGroups; ++g) {
#pragma GCC unroll 8
    for (size_t span = 0; span < 8; ++span) {
      unpack_seven_signs(field_of(groups, g, offset + span * stride),
                         signs.of[g] + span * 4 * kRowGroup,
                         tile.bytes.scale[g] + span * kRowGroup);
    }
  }
}

// Indices of more than 8 bits, in registers of the level's size.
inline constexpr size_t kIndexLanes = sizeof(Vector) / sizeof(uint16_t);
using Indices [[gnu::vector_size(sizeof(Vector))]] = uint16_t;
using IndexBytes [[gnu::vector_size(sizeof(Vector) / 2)]] = uint8_t;
using IndexRows [[gnu::vector_size(sizeof(Vector) / 2)]] = uint64_t;

inline Indices widened_indices(const uint8_t* bytes) noexcept {
  IndexBytes out;
  __builtin_memcpy(&out, bytes, sizeof(out));
  return __builtin_convertvector(out, Indices);
}

// kBits top bits of each entry, above the 8 bits at `low`; a byte at `top` has those of entries
// that follow each other, the first lowest.
template <size_t kBits, size_t kEntries>
[[gnu::always_inline]] inline void unpack_indices(const PackedGroups& groups, size_t low,
                                                  size_t top,
                                                  RowFields<uint16_t, kEntries>& out) noexcept {
  constexpr size_t kEntriesOfByte = 8 / kBits;
  constexpr uint16_t kMask = ((1u << kBits) - 1) << 8;
  constexpr size_t kVectors = kEntriesOfByte * kRowGroup / kIndexLanes;
  Indices factor[kVectors];
#pragma GCC unroll 64
  for (size_t i = 0; i < kVectors * kIndexLanes; ++i) {
    factor[i / kIndexLanes][i % kIndexLanes] =
        static_cast<uint16_t>(256u >> (i / kRowGroup * kBits));
  }
  for (size_t g = 0; g < kTileGroups; ++g) {
    for (size_t byte = 0; byte < kEntries / kEntriesOfByte; ++byte) {
      uint64_t rows;
      __builtin_memcpy(&rows, field_of(groups, g, top) + byte * kRowGroup, sizeof(rows));
      const IndexRows repeated = rows - IndexRows{};
      const Indices bits = __builtin_convertvector(reinterpret_cast<IndexBytes>(repeated), Indices);
#pragma GCC unroll 8
      for (size_t i = 0; i < kVectors; ++i) {
        const size_t first = byte * kEntriesOfByte * kRowGroup + i * kIndexLanes;
        const Indices index =
            widened_indices(field_of(groups, g, low) + first) | (bits * factor[i] & kMask);
        __builtin_memcpy(out.of[g] + first, &index, sizeof(index));
      }
    }
  }
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

// d is the stored scale times `factor`, a power of two.
inline void unpack_scaled_halves(const PackedGroups& groups, float factor,
                                 FoldTile& tile) noexcept {
  unpack_halves(groups, 0, tile.d);
  for (float& d : tile.d) d *= factor;
}

// A grid in the two shapes of codebooks.h. Levels that keep tables in registers (kPermutesGrids)
// look up the words, whose codes stand for `values`.
struct Grid {
  const int8_t* bytes;
  const uint16_t* words;
  const int8_t (&values)[16];
};

// Entries of 8 values, one a row; index `index` of row r is number r after groups + offset.
template <class Index>
[[gnu::always_inline]] inline CodeUnit unit_of_entries(const int8_t* grid,
                                                       const PackedGroups& groups,
                                                       size_t offset) noexcept {
  uint64_t words[kTileRows];
#pragma GCC unroll 32
  for (size_t row = 0; row < kTileRows; ++row) {
    Index index;
    __builtin_memcpy(&index,
                     groups.group[row / kRowGroup] + offset + row % kRowGroup * sizeof(index),
                     sizeof(index));
    __builtin_memcpy(&words[row], grid + size_t{index} * 8, sizeof(words[row]));
  }
  return unit_of_words(words);
}

// Two entries of 4 values, one a row.
template <class Index>
[[gnu::always_inline]] inline CodeUnit unit_of_entry_pairs(const int8_t* grid,
                                                           const PackedGroups& groups,
                                                           size_t offset) noexcept {
  uint32_t words[2][kTileRows];
#pragma GCC unroll 32
  for (size_t row = 0; row < kTileRows; ++row) {
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; ++half) {
      Index index;
      __builtin_memcpy(&index,
                       groups.group[row / kRowGroup] + offset +
                           (half * kRowGroup + row % kRowGroup) * sizeof(index),
                       sizeof(index));
      __builtin_memcpy(&words[half][row], grid + size_t{index} * 4, sizeof(uint32_t));
    }
  }
  return unit_of_half_words(words[0], words[1]);
}

// 8 x 1 bytes for the signs of each column unit.
struct SignField {
  const PackedGroups& groups;
  size_t offset;
};

// Column unit `unit`, with the signs at the start of the field.
//
// A unit that is `span * 4 | k` rather than a sum shows the compiler the span it belongs to, whose
// products then stay in a register.
template <class Format>
[[gnu::always_inline]] inline void store_signed(const CodeUnit& values, const SignField& signs,
                                                size_t unit, FoldTile& tile) noexcept {
  store_codes<Format>(signed_values(values, signs.groups, signs.offset, Format::kBias), unit, tile);
}

// Entries of 8 values, each a column unit.
template <class Format>
[[gnu::always_inline]] inline void store_word_entries(const int8_t* grid,
                                                      const RowFields<uint16_t, 32>& indices,
                                                      const SignField& signs,
                                                      FoldTile& tile) noexcept {
  const PackedGroups index_groups = indices.groups();
  for (size_t span = 0; span < 8; ++span) {
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; ++k) {
      const size_t row_bytes = (span * 4 + k) * kRowGroup;
      const CodeUnit values =
          unit_of_entries<uint16_t>(grid, index_groups, row_bytes * sizeof(uint16_t));
      store_signed<Format>(values, {signs.groups, signs.offset + row_bytes}, span * 4 | k, tile);
    }
  }
}

// 8 x 2: d | 8 times: 4 x 8 x 1: grid entries of 32 columns | 4 x 8 x 1: 4 x 7 signs and a 4-bit
// scale
struct IQ2_XXSFormat : Block256<QuantType::kIQ2_XXS, 66, 32> {
  static constexpr int kBias = 43;
  static constexpr int kMaxCode = 86;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.125f, tile);
    SignBytes signs;
    unpack_sign_words(groups, 48, 64, signs, tile);
    const PackedGroups sign_groups = signs.groups();
    for (size_t span = 0; span < 8; ++span) {
#pragma GCC unroll 4
      for (size_t k = 0; k < 4; ++k) {
        const CodeUnit values =
            unit_of_entries<uint8_t>(kGridIq2Xxs, groups, 16 + span * 64 + k * 8);
        store_signed<IQ2_XXSFormat>(values, {sign_groups, span * 32 + k * 8}, span * 4 | k, tile);
      }
    }
  }
};

// 8 x 2: d | 8 x 8 x 1: odd nibbles | 32 x 8 x 2: 9 bits that pick a grid entry, then 7 signs
struct IQ2_XSFormat : Block256<QuantType::kIQ2_XS, 74, 16> {
  static constexpr int kBias = 43;
  static constexpr int kMaxCode = 86;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.125f, tile);
    unpack_odd_nibbles(groups, 16, 8, tile);
    SignBytes signs;
    RowFields<uint16_t, 32> indices;
    for (size_t g = 0; g < kTileGroups; ++g) {
      for (size_t i = 0; i < 32 * kRowGroup; ++i) {
        uint16_t word;
        __builtin_memcpy(&word, groups.group[g] + 80 + i * sizeof(word), sizeof(word));
        indices.of[g][i] = word & 511;
        signs.of[g][i] = with_parity_sign(static_cast<uint8_t>(word >> 9));
      }
    }
    store_word_entries<IQ2_XSFormat>(kGridIq2Xs, indices, {signs.groups(), 0}, tile);
  }
};

// 8 x 2: d | 8 x 8 x 1: odd nibbles | 32 x 8 x 1: signs of a column unit | 8 x 8 x 1: top 2 bits of
// 4 entries | 32 x 8 x 1: low 8 bits of an entry
struct IQ2_SFormat : Block256<QuantType::kIQ2_S, 82, 16> {
  static constexpr int kBias = 43;
  static constexpr int kMaxCode = 86;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.125f, tile);
    unpack_odd_nibbles(groups, 16, 8, tile);
    RowFields<uint16_t, 32> indices;
    unpack_indices<2>(groups, 400, 336, indices);
    store_word_entries<IQ2_SFormat>(kGridIq2S, indices, {groups, 80}, tile);
  }
};

// Two column units of 4 entries of 4 values, whose indices are 4 x 8 x 1 bytes. A template, because
// only some levels have permuted_units.
template <class SomeGrid>
[[gnu::always_inline]] inline CodeUnitPair units_of_bytes(const SomeGrid& grid,
                                                          const PackedGroups& groups,
                                                          size_t offset) noexcept {
  if constexpr (kPermutesGrids) {
    return permuted_units(grid, field_of(groups, 0, offset));
  } else {
    return {unit_of_entry_pairs<uint8_t>(grid.bytes, groups, offset),
            unit_of_entry_pairs<uint8_t>(grid.bytes, groups, offset + 2 * kRowGroup)};
  }
}

// Units `unit` and `unit` + 1, of which the first is even.
template <class Format>
[[gnu::always_inline]] inline void store_signed_pair(const CodeUnitPair& values,
                                                     const SignField& signs, size_t unit,
                                                     FoldTile& tile) noexcept {
  store_signed<Format>(values.first, signs, unit, tile);
  store_signed<Format>(values.second, {signs.groups, signs.offset + kRowGroup}, unit | 1, tile);
}

// 8 x 2: d | 8 x 4 x 8 x 1: 4 x 7 signs and a 4-bit scale of 32 columns | 64 x 8 x 1: entries of 4
// values
struct IQ3_XXSFormat : Block256<QuantType::kIQ3_XXS, 98, 32> {
  static constexpr int kBias = 62;
  static constexpr int kMaxCode = 124;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 0.25f, tile);
    SignBytes signs;
    unpack_sign_words(groups, 16, 32, signs, tile);
    const PackedGroups sign_groups = signs.groups();
    for (size_t span = 0; span < 8; ++span) {
#pragma GCC unroll 2
      for (size_t k = 0; k < 4; k += 2) {
        const CodeUnitPair values = units_of_bytes(Grid{kGridIq3Xxs, kNibblesIq3Xxs, kIq3XxsValues},
                                                   groups, 272 + span * 64 + k * 16);
        store_signed_pair<IQ3_XXSFormat>(values, {sign_groups, span * 32 + k * 8}, span * 4 | k,
                                         tile);
      }
    }
  }
};

// 8 x 2: d | 4 x 8 x 1: odd nibbles | 32 x 8 x 1: signs of a column unit | 8 x 8 x 1: top bits of 8
// entries | 64 x 8 x 1: low 8 bits of an entry, of 4 values
struct IQ3_SFormat : Block256<QuantType::kIQ3_S, 110, 32> {
  static constexpr int kBias = 15;
  static constexpr int kMaxCode = 30;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_scaled_halves(groups, 1.0f, tile);
    unpack_odd_nibbles(groups, 16, 4, tile);
    unpack_codes(Grid{kGridIq3S, kNibblesIq3S, kIq3SValues}, groups, tile);
  }

 private:
  static constexpr size_t kSigns = 48;
  static constexpr size_t kTop = 304;
  static constexpr size_t kLow = 368;

  // A template as units_of_bytes is.
  template <class SomeGrid>
  [[gnu::always_inline]] static void unpack_codes(const SomeGrid& grid, const PackedGroups& groups,
                                                  FoldTile& tile) noexcept {
    if constexpr (kPermutesGrids) {
      for (size_t span = 0; span < 8; ++span) {
        const SignField signs{groups, kSigns + span * 32};
        const uint8_t* top = field_of(groups, 0, kTop + span * kRowGroup);
        const uint8_t* low = field_of(groups, 0, kLow + span * 64);
        store_signed_pair<IQ3_SFormat>(permuted_units<0>(grid, low, top), signs, span * 4, tile);
        store_signed_pair<IQ3_SFormat>(permuted_units<4>(grid, low + 32, top),
                                       {groups, signs.offset + 16}, span * 4 | 2, tile);
      }
    } else {
      RowFields<uint16_t, 64> indices;
      unpack_indices<1>(groups, kLow, kTop, indices);
      const PackedGroups index_groups = indices.groups();
      for (size_t span = 0; span < 8; ++span) {
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; ++k) {
          const CodeUnit values =
              unit_of_entry_pairs<uint16_t>(grid.bytes, index_groups, span * 128 + k * 32);
          store_signed<IQ3_SFormat>(values, {groups, kSigns + span * 32 + k * 8}, span * 4 | k,
                                    tile);
        }
      }
    }
  }
};

}  // namespace
}  // namespace edgemoe::kernels
