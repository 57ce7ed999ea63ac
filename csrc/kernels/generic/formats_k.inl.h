// Unpacking of the K types and IQ4_XS: blocks of 256 with integer scales. The drawings show a row
// group: "8 x n" is n bytes of each of the 8 rows, in the order of quant/layout.cpp; a unit is 8
// x 8. Fields of scales are 8 x 1 each: byte i of row r at 8 * i + r.
#pragma once

#include "kernels/generic/formats_block32.inl.h"

namespace edgemoe::kernels {
namespace {

template <QuantType kQuant, size_t kBytes, size_t kScaleColumns>
struct Block256 {
  static constexpr QuantType kType = kQuant;
  static constexpr size_t kColumns = 256;
  static constexpr size_t kBlockBytes = kBytes;
  static constexpr size_t kSpan = kScaleColumns;
  static constexpr bool kSigned = false;
  static constexpr int kBias = 0;
  static constexpr bool kScaled = true;
  static constexpr Minimum kMinimum = Minimum::kNone;
};

// 2-bit fields: unit u of 8 (64 bytes a row) has columns of 4 units 32 columns apart.
inline size_t first_unit_of_pairs(size_t u) noexcept {
  return u / 4 * 16 + u % 4;
}

// 16 x 8 x 1: a scale in the low nibble and a minimum in the high one, each for 16 columns | 8
// units of 2-bit fields | both after 8 x 2: d | 8 x 2: dmin
struct Q2_KFormat : Block256<QuantType::kQ2_K, 84, 16> {
  static constexpr int kMaxCode = 3;
  static constexpr Minimum kMinimum = Minimum::kScaled;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_halves(groups, 16, tile.dmin);
    for (size_t g = 0; g < kTileGroups; ++g) {
      const uint8_t* scales = field_of(groups, g, 32);
      for (size_t i = 0; i < 128; ++i) {
        tile.bytes.scale[g][i] = scales[i] & 15;
        tile.bytes.min[g][i] = scales[i] >> 4;
      }
    }
#pragma GCC unroll 8
    for (size_t u = 0; u < 8; ++u) {
      const CodeUnit fields = load_unit(groups, 160 + u * 64);
      const size_t first = first_unit_of_pairs(u);
      store_codes<Q2_KFormat>(bits<0>(fields, 3), first, tile);
      store_codes<Q2_KFormat>(bits<2>(fields, 3), first + 4, tile);
      store_codes<Q2_KFormat>(bits<4>(fields, 3), first + 8, tile);
      store_codes<Q2_KFormat>(bits<6>(fields, 3), first + 12, tile);
    }
  }
};

// 8 x 2: d | 12 x 8 x 1: scales | 4 units: third bits | 8 units of 2-bit fields.
// Bit j of byte c of the third bits belongs to column 32 j + c. The 16 scales, 6 bits less 32:
//   byte s % 8: low 4 bits of scale s (low nibble for s < 8, else the high one)
//   byte 8 + s % 4: top 2 bits of scale s at bit 2 * (s / 4)
struct Q3_KFormat : Block256<QuantType::kQ3_K, 110, 16> {
  static constexpr int kBias = 4;
  static constexpr int kMaxCode = 7;

  static void unpack_scales(const uint8_t* low, int8_t* scale) noexcept {
    const uint8_t* high = low + 64;
    for (size_t i = 0; i < 32; ++i) {
      const int top = high[i];
      scale[i] = static_cast<int8_t>(((low[i] & 15) | (top & 3) << 4) - 32);
      scale[i + 32] = static_cast<int8_t>(((low[i + 32] & 15) | (top >> 2 & 3) << 4) - 32);
      scale[i + 64] = static_cast<int8_t>((low[i] >> 4 | (top >> 4 & 3) << 4) - 32);
      scale[i + 96] = static_cast<int8_t>((low[i + 32] >> 4 | top >> 6 << 4) - 32);
    }
  }

  // 2-bit field kField (0..3) of a half of 128 columns.
  template <int kField>
  static CodeUnit codes_of(const CodeUnit& fields, const CodeUnit& third, size_t half) noexcept {
    const CodeUnit low = bits<2 * kField>(fields, 3);
    return half == 0 ? with_bits(low, shifted_bit<kField>(third))
                     : with_bits(low, shifted_bit<kField + 4>(third));
  }
  // Bit kBit of each byte, as 4 or 0.
  template <int kBit>
  static CodeUnit shifted_bit(const CodeUnit& third) noexcept {
    if constexpr (kBit >= 2) {
      return bits<kBit - 2>(third, 4);
    } else {
      return bits_up<2 - kBit>(third, 4);
    }
  }

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    for (size_t g = 0; g < kTileGroups; ++g) {
      unpack_scales(field_of(groups, g, 16), tile.bytes.scale[g]);
    }
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; ++c) {
      const CodeUnit third = load_unit(groups, 112 + c * 64);
#pragma GCC unroll 2
      for (size_t half = 0; half < 2; ++half) {
        const CodeUnit fields = load_unit(groups, 368 + (half * 4 + c) * 64);
        const size_t first = half * 16 + c;
        store_codes<Q3_KFormat>(codes_of<0>(fields, third, half), first, tile);
        store_codes<Q3_KFormat>(codes_of<1>(fields, third, half), first + 4, tile);
        store_codes<Q3_KFormat>(codes_of<2>(fields, third, half), first + 8, tile);
        store_codes<Q3_KFormat>(codes_of<3>(fields, third, half), first + 12, tile);
      }
    }
  }
};

// 12 x 8 x 1: the scales and minima of 8 spans of 32 columns, 6 bits each:
//   byte j      scale j (low 6 bits),         bits 4..5 of scale j + 4 (top 2 bits)     j = 0..3
//   byte 4 + j  minimum j (low 6 bits),       bits 4..5 of minimum j + 4 (top 2 bits)
//   byte 8 + j  scale j + 4 (low 4 bits of it in the low nibble), minimum j + 4 (in the high one)
[[gnu::always_inline]] inline void unpack_six_bit_scales(const PackedGroups& groups, size_t offset,
                                                         FoldTile& tile) noexcept {
  for (size_t g = 0; g < kTileGroups; ++g) {
    const uint8_t* scales = field_of(groups, g, offset);
    const uint8_t* minima = scales + 32;
    const uint8_t* low = scales + 64;
    int8_t* scale = tile.bytes.scale[g];
    int8_t* min = tile.bytes.min[g];
    for (size_t i = 0; i < 32; ++i) {
      scale[i] = scales[i] & 63;
      min[i] = minima[i] & 63;
      scale[i + 32] = static_cast<int8_t>((low[i] & 15) | scales[i] >> 6 << 4);
      min[i + 32] = static_cast<int8_t>(low[i] >> 4 | minima[i] >> 6 << 4);
    }
  }
}

// 8 x 2: d | 8 x 2: dmin | 6-bit scales | 16 units of nibbles: four hold 64 columns, 0..31 in the
// low nibbles, 32..63 in the high ones
struct Q4_KFormat : Block256<QuantType::kQ4_K, 144, 32> {
  static constexpr int kMaxCode = 15;
  static constexpr Minimum kMinimum = Minimum::kScaled;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_halves(groups, 16, tile.dmin);
    unpack_six_bit_scales(groups, 32, tile);
#pragma GCC unroll 16
    for (size_t u = 0; u < 16; ++u) {
      const CodeUnit codes = load_unit(groups, 128 + u * 64);
      const size_t first = u / 4 * 8 + u % 4;
      store_codes<Q4_KFormat>(bits<0>(codes, 15), first, tile);
      store_codes<Q4_KFormat>(bits<4>(codes, 15), first + 4, tile);
    }
  }
};

// 8 x 2: d | 8 x 2: dmin | 6-bit scales | 4 units: fifth bits | 16 units of nibbles as Q4_K.
// Bit j of byte c of the fifth bits belongs to column 32 j + c.
struct Q5_KFormat : Block256<QuantType::kQ5_K, 176, 32> {
  static constexpr int kMaxCode = 31;
  static constexpr Minimum kMinimum = Minimum::kScaled;

  // Bit kBit of each byte, as 16 or 0.
  template <int kBit>
  static CodeUnit shifted_bit(const CodeUnit& fifth) noexcept {
    if constexpr (kBit >= 4) {
      return bits<kBit - 4>(fifth, 16);
    } else {
      return bits_up<4 - kBit>(fifth, 16);
    }
  }
  // 64 columns. Each part reads the fifth bits again, so that nibbles are one stream of memory.
  template <int kPart>
  [[gnu::always_inline]] static void unpack_part(const PackedGroups& groups,
                                                 FoldTile& tile) noexcept {
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; ++c) {
      const CodeUnit fifth = load_unit(groups, 128 + c * 64);
      const CodeUnit codes = load_unit(groups, 384 + (kPart * 4 + c) * 64);
      const size_t first = kPart * 8 + c;
      store_codes<Q5_KFormat>(with_bits(bits<0>(codes, 15), shifted_bit<2 * kPart>(fifth)), first,
                              tile);
      store_codes<Q5_KFormat>(with_bits(bits<4>(codes, 15), shifted_bit<2 * kPart + 1>(fifth)),
                              first + 4, tile);
    }
  }

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_halves(groups, 16, tile.dmin);
    unpack_six_bit_scales(groups, 32, tile);
    unpack_part<0>(groups, tile);
    unpack_part<1>(groups, tile);
    unpack_part<2>(groups, tile);
    unpack_part<3>(groups, tile);
  }
};

// 8 x 2: d | 16 x 8 x 1: signed scales | 16 units: low | 8 units: high.
// Each half of 128 columns has 8 units of low nibbles and 4 of high bits; columns c = 0..31 of it:
//   column c       low nibble of low[c],       bits 0..1 of high[c]
//   column c + 32  low nibble of low[c + 32],  bits 2..3
//   column c + 64  high nibble of low[c],      bits 4..5
//   column c + 96  high nibble of low[c + 32], bits 6..7
struct Q6_KFormat : Block256<QuantType::kQ6_K, 210, 16> {
  static constexpr int kBias = 32;
  static constexpr int kMaxCode = 63;

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    for (size_t g = 0; g < kTileGroups; ++g) {
      __builtin_memcpy(tile.bytes.scale[g], field_of(groups, g, 16), 128);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
      const size_t half = i / 4;
      const size_t c = i % 4;
      const CodeUnit low = load_unit(groups, 144 + (half * 8 + c) * 64);
      const CodeUnit low_32 = load_unit(groups, 144 + (half * 8 + c + 4) * 64);
      const CodeUnit high = load_unit(groups, 1168 + i * 64);
      const size_t first = half * 16 + c;
      store_codes<Q6_KFormat>(with_bits(bits<0>(low, 15), bits_up<4>(high, 48)), first, tile);
      store_codes<Q6_KFormat>(with_bits(bits<0>(low_32, 15), bits_up<2>(high, 48)), first + 4,
                              tile);
      store_codes<Q6_KFormat>(with_bits(bits<4>(low, 15), bits<0>(high, 48)), first + 8, tile);
      store_codes<Q6_KFormat>(with_bits(bits<4>(low_32, 15), bits<2>(high, 48)), first + 12, tile);
    }
  }
};

// 8 x 2: d | 2 x 8 x 1: top bits of scales | 4 x 8 x 1: low bits of scales | 8 x split nibbles:
// indices of values. The 8 scales, 6 bits less 32: low 4 bits of scales 2i and 2i + 1 in the low
// and high nibble of byte i; top 2 bits of scale s at bit 2 * (s % 4) of byte s / 4.
struct IQ4_XSFormat : Block256<QuantType::kIQ4_XS, 136, 32> {
  static constexpr bool kSigned = true;
  static constexpr int kMaxCode = 127;
  static constexpr auto& kValues = kIq4Values;

  static void unpack_scales(const uint8_t* high, int8_t* scale) noexcept {
    const uint8_t* low = high + 16;
    for (size_t span = 0; span < 8; ++span) {
      for (size_t row = 0; row < kRowGroup; ++row) {
        const int nibble = low[span / 2 * 8 + row] >> (span % 2 * 4) & 15;
        const int top = high[span / 4 * 8 + row] >> (span % 4 * 2) & 3;
        scale[span * 8 + row] = static_cast<int8_t>((nibble | top << 4) - 32);
      }
    }
  }

  [[gnu::always_inline]] static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    for (size_t g = 0; g < kTileGroups; ++g) {
      unpack_scales(field_of(groups, g, 16), tile.bytes.scale[g]);
    }
#pragma GCC unroll 8
    for (size_t span = 0; span < 8; ++span) {
      unpack_values<IQ4_XSFormat>(groups, 64 + span * 128, span * 4, tile);
    }
  }
};

}  // namespace
}  // namespace edgemoe::kernels
