// The AVX-512 level with VNNI: every quantised product over 32 rows at a time.
#include "kernels/levels.h"
#include "kernels/x86/peak_512.inl.h"
#include "kernels/x86/tile_avx512.inl.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_avx512(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
  table.multiply_peak = multiply_peak;
  fill_avx512_one_token(table);
}

}  // namespace edgemoe::kernels
