// The products of the AVX-512 level with one token.
#include "kernels/levels.h"
#include "kernels/x86/tile_avx512_vector.inl.h"

#include "kernels/generic/fill_packed.inl.h"  // needs the tile

namespace edgemoe::kernels {

void fill_avx512_vector(KernelTable& table) noexcept {
  set_packed_products(table.multiply_vector);
}

}  // namespace edgemoe::kernels
