// The AVX2 level (with FMA and F16C): every quantised product over 8 rows at a time.
#include "kernels/generic/fill.inl.h"
#include "kernels/levels.h"
#include "kernels/x86/formats_avx2.inl.h"

namespace edgemoe::kernels {

void fill_avx2(KernelTable& table) noexcept {
  fill_float_operations(table);
  fill_quantised_products<GenericProduct>(table);
  matmul_of(table, QuantType::kQ4_0) = PackedProduct<Q4_0Format>::multiply;
  matmul_of(table, QuantType::kQ8_0) = PackedProduct<Q8_0Format>::multiply;
  matmul_of(table, QuantType::kQ4_K) = PackedProduct<Q4_KFormat>::multiply;
  matmul_of(table, QuantType::kQ6_K) = PackedProduct<Q6_KFormat>::multiply;
}

}  // namespace edgemoe::kernels
