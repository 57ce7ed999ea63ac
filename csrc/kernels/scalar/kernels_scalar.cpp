// The scalar level: the generic loops, compiled for the baseline of the architecture.
#include "kernels/generic/fill.inl.h"
#include "kernels/levels.h"

namespace edgemoe::kernels {

void fill_scalar(KernelTable& table) noexcept { fill_generic(table); }

}  // namespace edgemoe::kernels
