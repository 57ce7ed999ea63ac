// A code unit: 8 columns of every row of a tile, one byte each, as vectors. What unpacking does
// with it is the same for every byte, so formats are written once, whatever the order of the bytes.
//
// A level brings, in a header of its own that includes this one last:
//
//   kTileRows                      8, or 32 (four row groups)
//   Vector, kUnitVectors           a unit is that many vectors
//   splat_byte(b)                  b in every byte
//   bit_and, bit_or, bit_xor       of two vectors
//   add_bytes, subtract_bytes      modulo 256
//   shift_right<n>, shift_left<n>  bits of a byte; bits of its neighbours may enter, unless
//                                  kShiftsBytes
//   look_up(table, v)              byte v of 16 table bytes; Requires: v < 16
//   load_unit(groups, offset)      64 bytes of each group: 8 bytes a row
//   unit_of_words(words)           word r holds the bytes of row r
//   unit_of_bits(groups, offset)   8 bytes of each group, one a row: 0xFF where bit c of the row's
//                                  byte is set, for column c, else 0
//   unit_of_half_words(first, second)   words of 4 bytes: columns 0..3 and 4..7 of row r
//   signed_values(values, groups, offset, bias)   bias + value, or bias - value where the bit that
//                                  unit_of_bits takes is set
//   kPermutesGrids                 whether it has permuted_units (x86/permuted_grids.inl.h)
//   unpack_halves, unpack_powers   one float a row: binary16; 2^(byte - 128), an e8m0 halved
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/layout.h"
#include "quant/unpack.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kTileGroups = kTileRows / kRowGroup;
inline constexpr size_t kUnitColumns = 8;

// A block column of the packed row groups of a tile. A missing last group repeats the one before.
struct PackedGroups {
  const std::byte* group[kTileGroups];
};

struct CodeUnit {
  Vector part[kUnitVectors];
};
struct CodeUnitPair {
  CodeUnit first;
  CodeUnit second;
};

// Integer scales and minima of a fold, a byte for each span and row: span after span of 8 rows.
inline constexpr size_t kMaxSpans = kMaxFold / kSubBlock;
struct alignas(64) ScaleBytes {
  int8_t scale[kTileGroups][kMaxSpans * kRowGroup];
  int8_t min[kTileGroups][kMaxSpans * kRowGroup];
};

template <class Function>
CodeUnit map_unit(const CodeUnit& a, Function function) noexcept {
  CodeUnit out;
#pragma GCC unroll 4
  for (size_t i = 0; i < kUnitVectors; ++i) out.part[i] = function(a.part[i]);
  return out;
}
template <class Function>
CodeUnit map_units(const CodeUnit& a, const CodeUnit& b, Function function) noexcept {
  CodeUnit out;
#pragma GCC unroll 4
  for (size_t i = 0; i < kUnitVectors; ++i) out.part[i] = function(a.part[i], b.part[i]);
  return out;
}

// (byte >> kShift) & mask. Requires: the mask has no bit that only a neighbour can set.
template <int kShift>
CodeUnit bits(const CodeUnit& unit, uint8_t mask) noexcept {
  return map_unit(unit, [mask](Vector v) noexcept {
    if constexpr (kShift > 0) v = shift_right<kShift>(v);
    if (kShiftsBytes && mask == 0xFF >> kShift) return v;  // the shift has cleared the rest
    return bit_and(v, splat_byte(mask));
  });
}
// (byte << kShift) & mask, likewise.
template <int kShift>
CodeUnit bits_up(const CodeUnit& unit, uint8_t mask) noexcept {
  return map_unit(
      unit, [mask](Vector v) noexcept { return bit_and(shift_left<kShift>(v), splat_byte(mask)); });
}

inline CodeUnit with_bits(const CodeUnit& unit, const CodeUnit& more) noexcept {
  return map_units(unit, more, [](Vector a, Vector b) noexcept { return bit_or(a, b); });
}

// value where `mask` is 0xFF, else 0
inline CodeUnit value_where(const CodeUnit& mask, uint8_t value) noexcept {
  return map_unit(mask, [value](Vector m) noexcept { return bit_and(m, splat_byte(value)); });
}

inline CodeUnit look_up(const int8_t (&table)[16], const CodeUnit& codes) noexcept {
  return map_unit(codes, [&table](Vector v) noexcept { return look_up(table, v); });
}

// bias + value, or bias - value where `negative` is 0xFF
inline CodeUnit signed_values(const CodeUnit& values, const CodeUnit& negative,
                              uint8_t bias) noexcept {
  return map_units(values, negative, [bias](Vector v, Vector n) noexcept {
    return subtract_bytes(add_bytes(bit_xor(v, n), splat_byte(bias)), n);
  });
}

inline const uint8_t* field_of(const PackedGroups& groups, size_t group, size_t offset) noexcept {
  return reinterpret_cast<const uint8_t*>(groups.group[group] + offset);
}

}  // namespace
}  // namespace edgemoe::kernels
