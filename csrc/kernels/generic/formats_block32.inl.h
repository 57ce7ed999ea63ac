// Unpacking of types with blocks of 32: one float scale, no integer scales. The drawings show a row
// group: "8 x n" is n bytes of each of the 8 rows, in the order of quant/layout.cpp; a unit is 8
// x 8. "Split nibbles" are 2 units: columns 0..15 in the low nibbles, 16..31 in the high ones.
#pragma once

#include "kernels/generic/matmul_rows.inl.h"
#include "quant/value_tables.h"

namespace edgemoe::kernels {
namespace {

template <QuantType kQuant, size_t kBytes>
struct Block32 {
  static constexpr QuantType kType = kQuant;
  static constexpr size_t kColumns = 32;
  static constexpr size_t kBlockBytes = kBytes;
  static constexpr size_t kSpan = 32;
  static constexpr bool kSigned = false;
  static constexpr int kBias = 0;
  static constexpr bool kScaled = false;
  static constexpr Minimum kMinimum = Minimum::kNone;
};

// w = d * code - dmin, where the block stores -dmin.
inline void unpack_minimum(const PackedGroups& groups, size_t offset, FoldTile& tile) noexcept {
  unpack_halves(groups, offset, tile.dmin);
  for (float& dmin : tile.dmin) dmin = -dmin;
}

// 8 x 2: d | split nibbles
struct Q4_0Format : Block32<QuantType::kQ4_0, 18> {
  static constexpr int kBias = 8;
  static constexpr int kMaxCode = 15;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
#pragma GCC unroll 2
    for (size_t unit = 0; unit < 2; ++unit) {
      const CodeUnit codes = load_unit(groups, 16 + unit * 64);
      store_codes<Q4_0Format>(bits<0>(codes, 15), unit, tile);
      store_codes<Q4_0Format>(bits<4>(codes, 15), unit + 2, tile);
    }
  }
};

// 8 x 2: d | 8 x 2: minimum | split nibbles
struct Q4_1Format : Block32<QuantType::kQ4_1, 20> {
  static constexpr int kMaxCode = 15;
  static constexpr Minimum kMinimum = Minimum::kPlain;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_minimum(groups, 16, tile);
#pragma GCC unroll 2
    for (size_t unit = 0; unit < 2; ++unit) {
      const CodeUnit codes = load_unit(groups, 32 + unit * 64);
      store_codes<Q4_1Format>(bits<0>(codes, 15), unit, tile);
      store_codes<Q4_1Format>(bits<4>(codes, 15), unit + 2, tile);
    }
  }
};

// The fifth bits of column unit u are the bits of byte u: 4 x 8 x 1. Split nibbles follow.
template <class Format>
[[gnu::always_inline]] inline void unpack_five_bits(const PackedGroups& groups, size_t offset,
                                                    FoldTile& tile) noexcept {
  const auto fifth = [&](size_t unit) noexcept {
    return value_where(unit_of_bits(groups, offset + unit * 8), 16);
  };
#pragma GCC unroll 2
  for (size_t unit = 0; unit < 2; ++unit) {
    const CodeUnit codes = load_unit(groups, offset + 32 + unit * 64);
    store_codes<Format>(with_bits(bits<0>(codes, 15), fifth(unit)), unit, tile);
    store_codes<Format>(with_bits(bits<4>(codes, 15), fifth(unit + 2)), unit + 2, tile);
  }
}

// 8 x 2: d | fifth bits | split nibbles
struct Q5_0Format : Block32<QuantType::kQ5_0, 22> {
  static constexpr int kBias = 16;
  static constexpr int kMaxCode = 31;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_five_bits<Q5_0Format>(groups, 16, tile);
  }
};

// 8 x 2: d | 8 x 2: minimum | fifth bits | split nibbles
struct Q5_1Format : Block32<QuantType::kQ5_1, 24> {
  static constexpr int kMaxCode = 31;
  static constexpr Minimum kMinimum = Minimum::kPlain;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_minimum(groups, 16, tile);
    unpack_five_bits<Q5_1Format>(groups, 32, tile);
  }
};

// 8 x 2: d | 4 units: signed codes in column order
struct Q8_0Format : Block32<QuantType::kQ8_0, 34> {
  static constexpr bool kSigned = true;
  static constexpr int kMaxCode = 128;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
#pragma GCC unroll 4
    for (size_t unit = 0; unit < 4; ++unit) {
      store_codes<Q8_0Format>(load_unit(groups, 16 + unit * 64), unit, tile);
    }
  }
};

// Split nibbles at `offset`, each the index of a value; columns from unit `first` on.
template <class Format>
[[gnu::always_inline]] inline void unpack_values(const PackedGroups& groups, size_t offset,
                                                 size_t first, FoldTile& tile) noexcept {
#pragma GCC unroll 2
  for (size_t unit = 0; unit < 2; ++unit) {
    const CodeUnit codes = load_unit(groups, offset + unit * 64);
    store_codes<Format>(look_up(Format::kValues, bits<0>(codes, 15)), first + unit, tile);
    store_codes<Format>(look_up(Format::kValues, bits<4>(codes, 15)), first + unit + 2, tile);
  }
}

// 8 x 2: d | split nibbles: indices of values
struct IQ4_NLFormat : Block32<QuantType::kIQ4_NL, 18> {
  static constexpr bool kSigned = true;
  static constexpr int kMaxCode = 127;
  static constexpr auto& kValues = kIq4Values;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_values<IQ4_NLFormat>(groups, 16, 0, tile);
  }
};

// 8 x 1: exponent | split nibbles: E2M1 floats
struct MXFP4Format : Block32<QuantType::kMXFP4, 17> {
  static constexpr int kBias = 12;
  static constexpr int kMaxCode = 24;
  // kFp4DoubledValues + kBias
  static constexpr int8_t kValues[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_powers(groups, 0, tile.d);
    unpack_values<MXFP4Format>(groups, 8, 0, tile);
  }
};

}  // namespace
}  // namespace edgemoe::kernels
