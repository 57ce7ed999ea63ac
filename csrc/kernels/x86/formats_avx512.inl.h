// Unpacking of packed row groups to the AVX-512 tile. The drawings show a group: "8 x n" is n bytes
// of each of the 8 rows, row after row; fields in the order of quant/layout.cpp.
#pragma once

#include "kernels/x86/tile_avx512.inl.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the tile

namespace edgemoe::kernels {
namespace {

inline void store_lanes(void* to, __m512i lanes) noexcept {
  _mm512_store_si512(to, lanes);
}

inline __m128i load_16(const std::byte* from) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(from));
}
inline __m256i load_32(const std::byte* from) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(from));
}

// A field of one half a row.
inline void unpack_halves(const PackedGroups& groups, size_t offset, float* out) noexcept {
  const __m256i halves =
      _mm256_set_m128i(load_16(groups.group[1] + offset), load_16(groups.group[0] + offset));
  _mm512_store_ps(out, _mm512_cvtph_ps(halves));
}

// A unit of 4 bytes a row: lane r is row r.
inline __m512i load_4_byte_unit(const PackedGroups& groups, size_t offset) noexcept {
  return _mm512_inserti64x4(_mm512_castsi256_si512(load_32(groups.group[0] + offset)),
                            load_32(groups.group[1] + offset), 1);
}

// A unit of 8 bytes a row: lane r of `first` has bytes 0..3 of row r, `second` has bytes 4..7.
struct Unit8 {
  __m512i first;
  __m512i second;
};
inline Unit8 load_8_byte_unit(const PackedGroups& groups, size_t offset) noexcept {
  const __m512i low = _mm512_loadu_si512(groups.group[0] + offset);
  const __m512i high = _mm512_loadu_si512(groups.group[1] + offset);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  return {_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high)};
}

template <int kShift>
__m512i bits(__m512i bytes, char mask) noexcept {
  return _mm512_and_si512(_mm512_srli_epi32(bytes, kShift), _mm512_set1_epi8(mask));
}

// 8 x 2: d | 2 units of 8 x 8: codes, columns 0..15 in the low nibbles, 16..31 in the high ones
struct Q4_0Format {
  static constexpr QuantType kType = QuantType::kQ4_0;
  static constexpr size_t kColumns = 32;
  static constexpr size_t kBlockBytes = 18;
  static constexpr size_t kSpan = 32;
  static constexpr int kBias = 8;
  static constexpr bool kScaled = false;
  static constexpr bool kHasMin = false;

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    for (size_t unit = 0; unit < 2; ++unit) {
      const Unit8 codes = load_8_byte_unit(groups, 16 + unit * 64);
      store_lanes(tile.code[2 * unit], bits<0>(codes.first, 15));
      store_lanes(tile.code[2 * unit + 1], bits<0>(codes.second, 15));
      store_lanes(tile.code[4 + 2 * unit], bits<4>(codes.first, 15));
      store_lanes(tile.code[4 + 2 * unit + 1], bits<4>(codes.second, 15));
    }
  }
};

// 8 x 2: d | 4 units of 8 x 8: signed codes in column order
struct Q8_0Format {
  static constexpr QuantType kType = QuantType::kQ8_0;
  static constexpr size_t kColumns = 32;
  static constexpr size_t kBlockBytes = 34;
  static constexpr size_t kSpan = 32;
  static constexpr int kBias = 128;
  static constexpr bool kScaled = false;
  static constexpr bool kHasMin = false;

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    const __m512i bias = _mm512_set1_epi8(-128);  // flips the top bit, which adds 128
    for (size_t unit = 0; unit < 4; ++unit) {
      const Unit8 codes = load_8_byte_unit(groups, 16 + unit * 64);
      store_lanes(tile.code[2 * unit], _mm512_xor_si512(codes.first, bias));
      store_lanes(tile.code[2 * unit + 1], _mm512_xor_si512(codes.second, bias));
    }
  }
};

// 8 x 2: d | 8 x 2: dmin | 3 units of 8 x 4: scales and mins | 16 units of 8 x 8: codes.
// Four units hold 64 columns: 0..31 in the low nibbles, 32..63 in the high ones. The scales and
// mins of the 8 spans of 32 columns, 6 bits each, are spread over 12 bytes:
//   byte j      scale j (low 6 bits),         bits 4..5 of scale j + 4 (top 2 bits)     j = 0..3
//   byte 4 + j  min j (low 6 bits),           bits 4..5 of min j + 4 (top 2 bits)
//   byte 8 + j  scale j + 4 (low 4 bits of it in the low nibble), min j + 4 (in the high one)
struct Q4_KFormat {
  static constexpr QuantType kType = QuantType::kQ4_K;
  static constexpr size_t kColumns = 256;
  static constexpr size_t kBlockBytes = 144;
  static constexpr size_t kSpan = 32;
  static constexpr int kBias = 0;
  static constexpr bool kScaled = true;
  static constexpr bool kHasMin = true;

  template <int kByte>
  static void store_span(__m512i scales, __m512i mins, size_t span, FoldTile& tile) noexcept {
    store_lanes(tile.scale[span],
                _mm512_and_si512(_mm512_srli_epi32(scales, 8 * kByte), _mm512_set1_epi32(255)));
    const __m512i min =
        _mm512_and_si512(_mm512_srli_epi32(mins, 8 * kByte), _mm512_set1_epi32(255));
    store_lanes(tile.min_pair[span], _mm512_or_si512(min, _mm512_slli_epi32(min, 16)));
  }

  static void store_spans(__m512i scales, __m512i mins, size_t span, FoldTile& tile) noexcept {
    store_span<0>(scales, mins, span, tile);
    store_span<1>(scales, mins, span + 1, tile);
    store_span<2>(scales, mins, span + 2, tile);
    store_span<3>(scales, mins, span + 3, tile);
  }

  static __m512i high_spans(__m512i low_4_bits, __m512i top_2_bits) noexcept {
    return _mm512_or_si512(low_4_bits, _mm512_slli_epi32(bits<6>(top_2_bits, 3), 4));
  }

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    unpack_halves(groups, 16, tile.dmin);
    const __m512i scales = load_4_byte_unit(groups, 32);
    const __m512i mins = load_4_byte_unit(groups, 64);
    const __m512i high = load_4_byte_unit(groups, 96);
    store_spans(bits<0>(scales, 63), bits<0>(mins, 63), 0, tile);
    store_spans(high_spans(bits<0>(high, 15), scales), high_spans(bits<4>(high, 15), mins), 4,
                tile);
    for (size_t unit = 0; unit < 16; ++unit) {
      const Unit8 codes = load_8_byte_unit(groups, 128 + unit * 64);
      const size_t lane = unit / 4 * 16 + unit % 4 * 2;
      store_lanes(tile.code[lane], bits<0>(codes.first, 15));
      store_lanes(tile.code[lane + 1], bits<0>(codes.second, 15));
      store_lanes(tile.code[lane + 8], bits<4>(codes.first, 15));
      store_lanes(tile.code[lane + 9], bits<4>(codes.second, 15));
    }
  }
};

// 8 x 2: d | 2 units of 8 x 8: signed scales | 16 units of 8 x 8: low | 8 units of 8 x 8: high.
// Each half of 128 columns has 8 units of low nibbles and 4 of high bits; columns c = 0..31 of it:
//   column c       low nibble of low[c],       bits 0..1 of high[c]
//   column c + 32  low nibble of low[c + 32],  bits 2..3
//   column c + 64  high nibble of low[c],      bits 4..5
//   column c + 96  high nibble of low[c + 32], bits 6..7
struct Q6_KFormat {
  static constexpr QuantType kType = QuantType::kQ6_K;
  static constexpr size_t kColumns = 256;
  static constexpr size_t kBlockBytes = 210;
  static constexpr size_t kSpan = 16;
  static constexpr int kBias = 32;
  static constexpr bool kScaled = true;
  static constexpr bool kHasMin = false;

  // Signed scales 4 * quarter .. 4 * quarter + 3, a byte each.
  static void store_scales(__m512i scales, size_t quarter, FoldTile& tile) noexcept {
    int32_t (*scale)[kTileRows] = tile.scale + 4 * quarter;
    store_lanes(scale[0], _mm512_srai_epi32(_mm512_slli_epi32(scales, 24), 24));
    store_lanes(scale[1], _mm512_srai_epi32(_mm512_slli_epi32(scales, 16), 24));
    store_lanes(scale[2], _mm512_srai_epi32(_mm512_slli_epi32(scales, 8), 24));
    store_lanes(scale[3], _mm512_srai_epi32(scales, 24));
    for (size_t pair = 0; pair < 2; ++pair) {
      const __m512i low = load_lanes(scale[2 * pair]);
      const __m512i high = load_lanes(scale[2 * pair + 1]);
      store_lanes(tile.scale_pair[2 * quarter + pair],
                  _mm512_mask_blend_epi16(0xAAAAAAAAu, low, _mm512_slli_epi32(high, 16)));
    }
  }

  // Columns c..c+3, c+32.., c+64.. and c+96.. of a half; `lane` is that of column c.
  static void store_codes(__m512i low, __m512i low_32, __m512i high, size_t lane,
                          FoldTile& tile) noexcept {
    const auto high_bits = [](__m512i shifted) noexcept {
      return _mm512_and_si512(shifted, _mm512_set1_epi8(0x30));
    };
    store_lanes(tile.code[lane],
                _mm512_or_si512(bits<0>(low, 15), high_bits(_mm512_slli_epi32(high, 4))));
    store_lanes(tile.code[lane + 8],
                _mm512_or_si512(bits<0>(low_32, 15), high_bits(_mm512_slli_epi32(high, 2))));
    store_lanes(tile.code[lane + 16], _mm512_or_si512(bits<4>(low, 15), high_bits(high)));
    store_lanes(tile.code[lane + 24],
                _mm512_or_si512(bits<4>(low_32, 15), high_bits(_mm512_srli_epi32(high, 2))));
  }

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    unpack_halves(groups, 0, tile.d);
    for (size_t unit = 0; unit < 2; ++unit) {
      const Unit8 scales = load_8_byte_unit(groups, 16 + unit * 64);
      store_scales(scales.first, 2 * unit, tile);
      store_scales(scales.second, 2 * unit + 1, tile);
    }
    constexpr size_t kLow = 16 + 2 * 64;
    constexpr size_t kHigh = kLow + 16 * 64;
    for (size_t unit = 0; unit < 8; ++unit) {  // 8 of the 32 columns c of a half
      const size_t half = unit / 4;
      const size_t part = unit % 4;
      const Unit8 low = load_8_byte_unit(groups, kLow + (8 * half + part) * 64);
      const Unit8 low_32 = load_8_byte_unit(groups, kLow + (8 * half + 4 + part) * 64);
      const Unit8 high = load_8_byte_unit(groups, kHigh + unit * 64);
      const size_t lane = 32 * half + 2 * part;
      store_codes(low.first, low_32.first, high.first, lane, tile);
      store_codes(low.second, low_32.second, high.second, lane + 1, tile);
    }
  }
};

}  // namespace
}  // namespace edgemoe::kernels
