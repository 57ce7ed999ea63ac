// The functions that fill a table, one per instruction-set level. A table is built from the lowest
// level upwards: fill_scalar sets every entry, each later level overwrites what it improves.
#pragma once

#include "kernels/kernel_table.h"

namespace edgemoe::kernels {

void fill_scalar(KernelTable& table) noexcept;
void fill_avx2(KernelTable& table) noexcept;          // AVX2, FMA, F16C
void fill_avxvnni(KernelTable& table) noexcept;       // the above and AVX-VNNI
void fill_avxvnni_evex(KernelTable& table) noexcept;  // the same, encoded as in AVX-512 VL, VNNI
void fill_avx512(KernelTable& table) noexcept;        // AVX2 and AVX-512 F, BW, VL, DQ, VNNI
void fill_neon(KernelTable& table) noexcept;          // ARMv8.0
void fill_dotprod(KernelTable& table) noexcept;       // the above and 8-bit dot products
void fill_i8mm(KernelTable& table) noexcept;          // the above and 8-bit matrix products

// Their products with one token, in objects of their own; called by the functions above.
void fill_avx2_one_token(KernelTable& table) noexcept;
void fill_avxvnni_one_token(KernelTable& table) noexcept;
void fill_avxvnni_evex_one_token(KernelTable& table) noexcept;
void fill_avx512_one_token(KernelTable& table) noexcept;
void fill_dotprod_one_token(KernelTable& table) noexcept;

}  // namespace edgemoe::kernels
