// The dotprod level: NEON with 8-bit dot products (Raspberry Pi 5, Jetson Orin).
#include "kernels/arm/peak_neon.inl.h"
#include "kernels/arm/tile_dotprod.inl.h"
#include "kernels/levels.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_dotprod(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
  table.multiply_peak = multiply_peak;
  fill_dotprod_one_token(table);
}

}  // namespace edgemoe::kernels
