// The NEON level: what every 64-bit ARM CPU has.
#include "kernels/arm/peak_neon.inl.h"
#include "kernels/arm/tile_neon.inl.h"
#include "kernels/levels.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_neon(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
  table.multiply_peak = multiply_peak;
}

}  // namespace edgemoe::kernels
