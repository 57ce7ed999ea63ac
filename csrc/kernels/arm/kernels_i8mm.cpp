// The i8mm level: NEON with 8-bit dot products and matrix products.
#include "kernels/arm/peak_neon.inl.h"
#include "kernels/arm/tile_i8mm.inl.h"
#include "kernels/levels.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_i8mm(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
  table.multiply_peak = multiply_peak;
  // With one token smmla multiplies everything twice.
  fill_dotprod_one_token(table);
}

}  // namespace edgemoe::kernels
