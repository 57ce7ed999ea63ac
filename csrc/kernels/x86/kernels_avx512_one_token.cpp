// The products of the AVX-512 level with one token.
#include "kernels/levels.h"
#include "kernels/x86/one_token_avx512.inl.h"

#include "kernels/generic/matmul_one_token.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_avx512_one_token(KernelTable& table) noexcept {
  fill_products_of_one_token(table);
}

}  // namespace edgemoe::kernels
