// The in-memory layout of a matrix: rows in groups of kRowGroup, the bytes of a group's blocks
// interleaved so that lanes are rows (design, section 4). The sizes do not change, so a matrix is
// regrouped in place, group by group.
//
// A packed type is a list of fields; field f of the 8 blocks at the same column is stored as
//
//   for each unit of the field:  row 0's unit, row 1's unit, ... row R-1's unit
//
// and the fields follow each other in list order. The last group of a matrix may have R < 8 rows;
// its layout is the same with that R. Types without a field list keep their GGUF bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/quant_type.h"

namespace edgemoe {

inline constexpr size_t kRowGroup = 8;

struct PackedField {
  uint16_t offset;  // in the GGUF block
  uint16_t bytes;   // of the whole field
  uint16_t unit;    // bytes of a row that stay together: 1, 2, 4 or 8
};

// Empty when the type keeps the GGUF layout. The fields cover the block exactly once.
std::span<const PackedField> packed_fields(QuantType type) noexcept;
inline bool is_packed(QuantType type) noexcept {
  return !packed_fields(type).empty();
}

// Scratch that regroup and ungroup need: one group of rows.
inline size_t regroup_scratch_bytes(QuantType type, size_t columns) noexcept {
  return is_packed(type) ? kRowGroup * row_bytes(type, columns) : 0;
}

// GGUF layout -> in-memory layout, for `rows` rows that start at a group boundary of the matrix.
// No-op for types that keep their layout.
void regroup(QuantType type, std::byte* data, size_t rows, size_t columns,
             std::byte* scratch) noexcept;
// The inverse.
void ungroup(QuantType type, std::byte* data, size_t rows, size_t columns,
             std::byte* scratch) noexcept;

// Copies block `block` (counted along the columns) of row `row` out of a matrix in the in-memory
// layout, as GGUF bytes. `rows` is the number of rows of the whole matrix.
void extract_block(QuantType type, const std::byte* matrix, size_t rows, size_t columns, size_t row,
                   size_t block, std::byte* out) noexcept;

}  // namespace edgemoe
