// The AVX-VNNI level with the instructions of AVX-512 (VL, VNNI): the same code for CPUs that lack
// the other encoding.
#include "kernels/levels.h"
#include "kernels/x86/peak_256.inl.h"
#include "kernels/x86/tile_avxvnni.inl.h"

#include "kernels/generic/matmul_tile.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_avxvnni_evex(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_tile_products(table);
  table.multiply_peak = multiply_peak;
  fill_avxvnni_evex_one_token(table);
}

}  // namespace edgemoe::kernels
