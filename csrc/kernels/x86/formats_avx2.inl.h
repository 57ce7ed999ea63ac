// Unpacking of packed row groups to the AVX2 tile. The drawings show a group: "8 x n" is n bytes of
// each of the 8 rows, row after row; fields in the order of quant/layout.cpp. A unit of 8 bytes a
// row is already in the order of the tile.
#pragma once

#include "kernels/x86/tile_avx2.inl.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the tile

namespace edgemoe::kernels {
namespace {

inline void store_lanes(void* to, __m256i lanes) noexcept {
  _mm256_store_si256(static_cast<__m256i*>(to), lanes);
}
inline __m256i load_32(const std::byte* from) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(from));
}

// A field of one half a row.
inline void unpack_halves(const std::byte* from, float* out) noexcept {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(from));
  _mm256_store_ps(out, _mm256_cvtph_ps(halves));
}

template <int kShift>
__m256i bits(__m256i bytes, char mask) noexcept {
  return _mm256_and_si256(_mm256_srli_epi32(bytes, kShift), _mm256_set1_epi8(mask));
}

// The scales of 8 rows (32-bit lanes, in 0..32767) as the tile keeps them: four copies a row.
inline void store_scale(__m256i scale, uint64_t* to) noexcept {
  const __m256i twice = _mm256_or_si256(scale, _mm256_slli_epi32(scale, 16));
  store_lanes(to, _mm256_permutevar8x32_epi32(twice, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)));
  store_lanes(to + 4,
              _mm256_permutevar8x32_epi32(twice, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)));
}

// 8 x 2: d | 2 units of 8 x 8: codes, columns 0..15 in the low nibbles, 16..31 in the high ones
struct Q4_0Format {
  static constexpr QuantType kType = QuantType::kQ4_0;
  static constexpr size_t kColumns = 32;
  static constexpr size_t kBlockBytes = 18;
  static constexpr size_t kSpan = 32;
  static constexpr bool kSigned = false;
  static constexpr int kBias = 8;
  static constexpr bool kScaled = false;
  static constexpr bool kHasMin = false;

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    const std::byte* group = groups.group[0];
    unpack_halves(group, tile.d);
    for (size_t i = 0; i < 4; ++i) {  // half a unit
      const __m256i codes = load_32(group + 16 + i * 32);
      store_lanes(tile.code[i / 2] + i % 2 * 4, bits<0>(codes, 15));
      store_lanes(tile.code[2 + i / 2] + i % 2 * 4, bits<4>(codes, 15));
    }
  }
};

// 8 x 2: d | 4 units of 8 x 8: signed codes in column order
struct Q8_0Format {
  static constexpr QuantType kType = QuantType::kQ8_0;
  static constexpr size_t kColumns = 32;
  static constexpr size_t kBlockBytes = 34;
  static constexpr size_t kSpan = 32;
  static constexpr bool kSigned = true;
  static constexpr int kBias = 0;
  static constexpr bool kScaled = false;
  static constexpr bool kHasMin = false;

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    const std::byte* group = groups.group[0];
    unpack_halves(group, tile.d);
    for (size_t i = 0; i < 8; ++i) {  // half a unit
      store_lanes(tile.code[i / 2] + i % 2 * 4, load_32(group + 16 + i * 32));
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
  static constexpr bool kSigned = false;
  static constexpr int kBias = 0;
  static constexpr bool kScaled = true;
  static constexpr bool kHasMin = true;

  // Spans span .. span + 3: one byte each of `scales` and `mins`.
  static void store_spans(__m256i scales, __m256i mins, size_t span, FoldTile& tile) noexcept {
    const __m256i low_byte = _mm256_set1_epi32(255);
    for (size_t s = span; s < span + 4; ++s) {
      store_scale(_mm256_and_si256(scales, low_byte), tile.scale[s]);
      const __m256i min = _mm256_and_si256(mins, low_byte);
      store_lanes(tile.min_pair[s], _mm256_or_si256(min, _mm256_slli_epi32(min, 16)));
      scales = _mm256_srli_epi32(scales, 8);
      mins = _mm256_srli_epi32(mins, 8);
    }
  }

  static __m256i high_spans(__m256i low_4_bits, __m256i top_2_bits) noexcept {
    return _mm256_or_si256(low_4_bits, _mm256_slli_epi32(bits<6>(top_2_bits, 3), 4));
  }

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    const std::byte* group = groups.group[0];
    unpack_halves(group, tile.d);
    unpack_halves(group + 16, tile.dmin);
    const __m256i scales = load_32(group + 32);
    const __m256i mins = load_32(group + 64);
    const __m256i high = load_32(group + 96);
    store_spans(bits<0>(scales, 63), bits<0>(mins, 63), 0, tile);
    store_spans(high_spans(bits<0>(high, 15), scales), high_spans(bits<4>(high, 15), mins), 4,
                tile);
    for (size_t i = 0; i < 32; ++i) {  // half a unit
      const __m256i codes = load_32(group + 128 + i * 32);
      const size_t lane = i / 8 * 8 + i % 8 / 2;
      store_lanes(tile.code[lane] + i % 2 * 4, bits<0>(codes, 15));
      store_lanes(tile.code[lane + 4] + i % 2 * 4, bits<4>(codes, 15));
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
  static constexpr bool kSigned = false;
  static constexpr int kBias = 32;
  static constexpr bool kScaled = true;
  static constexpr bool kHasMin = false;

  // Scales of 4 rows (a register of 8 signed bytes each): `to` is a row of tile.scale + the half.
  template <int kScale>
  static void store_scale_of_4_rows(__m256i scales, size_t first, size_t half,
                                    FoldTile& tile) noexcept {
    // Byte kScale of each 64-bit lane, to the top of its four 16-bit parts, then shifted down.
    constexpr char kZero = -128;
    const __m128i pick =
        _mm_setr_epi8(kZero, kScale, kZero, kScale, kZero, kScale, kZero, kScale, kZero, kScale + 8,
                      kZero, kScale + 8, kZero, kScale + 8, kZero, kScale + 8);
    const __m256i picked = _mm256_shuffle_epi8(scales, _mm256_broadcastsi128_si256(pick));
    store_lanes(tile.scale[first + kScale] + half * 4, _mm256_srai_epi16(picked, 8));
  }

  template <int... kScale>
  static void store_scales(const std::byte* unit, size_t first, FoldTile& tile) noexcept {
    for (size_t half = 0; half < 2; ++half) {
      const __m256i scales = load_32(unit + half * 32);
      (store_scale_of_4_rows<kScale>(scales, first, half, tile), ...);
    }
    // The low 32 bits of a row's four copies of scales 2i and 2i + 1 make the pair.
    const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    for (size_t s = first; s < first + 8; s += 2) {
      const auto rows = [&](size_t scale) noexcept {
        const __m256i low = _mm256_permutevar8x32_epi32(load_lanes(tile.scale[scale]), even);
        const __m256i high = _mm256_permutevar8x32_epi32(load_lanes(tile.scale[scale] + 4), even);
        return _mm256_blend_epi32(low, high, 0xF0);
      };
      store_lanes(tile.scale_pair[s / 2], _mm256_blend_epi16(rows(s), rows(s + 1), 0xAA));
    }
  }

  static __m256i with_high_bits(__m256i low_nibbles, __m256i shifted) noexcept {
    return _mm256_or_si256(low_nibbles, _mm256_and_si256(shifted, _mm256_set1_epi8(0x30)));
  }

  static void unpack(const PackedGroups& groups, FoldTile& tile) noexcept {
    const std::byte* group = groups.group[0];
    unpack_halves(group, tile.d);
    store_scales<0, 1, 2, 3, 4, 5, 6, 7>(group + 16, 0, tile);
    store_scales<0, 1, 2, 3, 4, 5, 6, 7>(group + 16 + 64, 8, tile);
    const std::byte* low_bits = group + 16 + 2 * 64;
    const std::byte* high_bits = low_bits + 16 * 64;
    for (size_t i = 0; i < 16; ++i) {  // 8 of the 32 columns c of a half, 4 rows
      const size_t half = i / 8;
      const size_t part = i % 8;
      const __m256i low = load_32(low_bits + half * 512 + part * 32);
      const __m256i low_32 = load_32(low_bits + half * 512 + 256 + part * 32);
      const __m256i high = load_32(high_bits + i * 32);
      uint64_t (*code)[kTileRows] = tile.code + 16 * half + part / 2;
      const size_t row = part % 2 * 4;
      store_lanes(code[0] + row, with_high_bits(bits<0>(low, 15), _mm256_slli_epi32(high, 4)));
      store_lanes(code[4] + row, with_high_bits(bits<0>(low_32, 15), _mm256_slli_epi32(high, 2)));
      store_lanes(code[8] + row, with_high_bits(bits<4>(low, 15), high));
      store_lanes(code[12] + row, with_high_bits(bits<4>(low_32, 15), _mm256_srli_epi32(high, 2)));
    }
  }
};

}  // namespace
}  // namespace edgemoe::kernels
