// The AVX-VNNI level: AVX2, FMA, F16C and AVX-VNNI, for client CPUs.
#include "kernels/levels.h"
#include "kernels/x86/tile_avxvnni.inl.h"

#include "kernels/generic/fill_packed.inl.h"  // needs the tile

namespace edgemoe::kernels {

void fill_avxvnni(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
}

}  // namespace edgemoe::kernels
