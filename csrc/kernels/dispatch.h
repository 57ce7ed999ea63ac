// Which kernel table this process uses. Levels in rising order: scalar; then avx2, avxvnni
// and avx512 on x86-64, or neon, dotprod and i8mm on aarch64.
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
// The tables that EDGEMOE_LEVEL leaves: that one, or all where it names none. Errors: as above.
std::span<const KernelTable* const> chosen_tables();
// Errors: as above.
const KernelTable& table_by_name(std::string_view level);

}  // namespace edgemoe::kernels
