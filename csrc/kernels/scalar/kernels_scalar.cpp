// The scalar level: the generic loops, compiled for the baseline of the architecture.
#include "kernels/generic/fill.inl.h"
#include "kernels/generic/matmul_unpack.inl.h"
#include "kernels/levels.h"

namespace edgemoe::kernels {

void fill_scalar(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_quantised_products<UnpackedProduct>(table);
}

}  // namespace edgemoe::kernels
