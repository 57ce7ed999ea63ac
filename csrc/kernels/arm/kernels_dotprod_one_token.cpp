// The products of the dotprod level with one token.
#include "kernels/arm/one_token_dotprod.inl.h"
#include "kernels/levels.h"

#include "kernels/generic/matmul_one_token.inl.h"  // needs the above

#include "kernels/generic/fill_packed.inl.h"  // needs the above

namespace edgemoe::kernels {

void fill_dotprod_one_token(KernelTable& table) noexcept {
  fill_products_of_one_token(table);
}

}  // namespace edgemoe::kernels
