// The AVX-VNNI level with the instructions of AVX-512 (VL, VNNI): the same code for CPUs that lack
// the other encoding.
#include "kernels/levels.h"
#include "kernels/x86/tile_avxvnni.inl.h"

#include "kernels/generic/fill_packed.inl.h"  // needs the tile

namespace edgemoe::kernels {

void fill_avxvnni_evex(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
}

}  // namespace edgemoe::kernels
