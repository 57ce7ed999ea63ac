// Replaces the codes of a block and leaves its scales: the inverse of the part of unpack_*.cpp that
// reads codes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_type.h"

namespace edgemoe {

// Writes the codes of one block, [block elements], as UnpackedFold has them.
using StoreCodesFn = void (*)(const int8_t* codes, std::byte* block) noexcept;

// Null for types without codes of their own.
StoreCodesFn store_codes_function(QuantType type) noexcept;

// For types of grids: writes the entries of a block, of 4 or 8 columns each, and the signs of its
// groups of eight columns, whose number is even where the type stores seven.
using StoreEntriesFn = void (*)(const uint16_t* entries, const uint8_t* signs,
                                std::byte* block) noexcept;

// Null for other types.
StoreEntriesFn store_entries_function(QuantType type) noexcept;
// Columns of an entry of such a type.
size_t entry_columns(QuantType type) noexcept;

}  // namespace edgemoe
