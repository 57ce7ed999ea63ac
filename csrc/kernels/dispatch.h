// Which kernel table this process uses. Levels in rising order on x86-64: scalar, avx2, avx512.
#pragma once

#include <span>
#include <string_view>

#include "kernels/kernel_table.h"

namespace edgemoe::kernels {

// Levels compiled in and supported by this CPU, lowest first; never empty ("scalar" is always
// there).
std::span<const KernelTable* const> available_tables() noexcept;

// The highest level, or the one that the environment variable EDGEMOE_LEVEL names.
// Errors: kArgument when the variable names a level that is unknown or that this CPU lacks; the
// message lists the levels.
const KernelTable& select_table();
// Errors: as above.
const KernelTable& table_by_name(std::string_view level);

}  // namespace edgemoe::kernels
