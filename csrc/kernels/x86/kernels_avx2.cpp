// The AVX2 level (with FMA and F16C): every quantised product over 8 rows at a time.
#include "kernels/levels.h"
#include "kernels/x86/peak_256.inl.h"
#include "kernels/x86/tile_avx2.inl.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_avx2(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
  table.multiply_peak = multiply_peak;
  fill_avx2_one_token(table);
}

}  // namespace edgemoe::kernels
