// Fills a table with the generic loops, as compiled for the level that includes this file.
#pragma once

#include "kernels/generic/attend.inl.h"
#include "kernels/generic/float_ops.inl.h"
#include "kernels/generic/matmul_float.inl.h"
#include "kernels/generic/quantize.inl.h"
#include "kernels/generic/recurrence.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

// For one token and for many.
inline void set_product(KernelTable& table, QuantType type, MatmulFn product) noexcept {
  table.matmul[static_cast<size_t>(type)] = product;
  table.multiply_vector[static_cast<size_t>(type)] = product;
}

// Everything but the products of quantised types.
inline void fill_float_operations(KernelTable& table) noexcept {
  set_product(table, QuantType::kF32, matmul_float<F32Element, 4>);
  set_product(table, QuantType::kF16, matmul_float<F16Element, 2>);
  set_product(table, QuantType::kBF16, matmul_float<Bf16Element, 2>);
  table.quantize_block32 = quantize_rows<32>;
  table.quantize_block256 = quantize_rows<256>;
  table.dot = dot;
  table.rms_norm = rms_norm;
  table.layer_norm = layer_norm;
  table.gated_activation = gated_activation;
  table.softmax = softmax;
  table.sigmoid = sigmoid;
  table.add = add;
  table.add_scaled = add_scaled;
  table.scale = scale;
  table.softcap = softcap;
  table.rotate = rotate;
  table.store_kv = store_kv;
  table.attend = attend;
  table.convolve = convolve;
  table.recur = recur;
  table.scan = scan;
}

// The products of all quantised types. kMatmul is a struct template with a static member
// `multiply`, because a function template cannot be a template argument.
template <template <QuantType> class kMatmul>
void fill_quantised_products(KernelTable& table) noexcept {
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, encoding)                    \
  if constexpr (ActivationEncoding::encoding != ActivationEncoding::kF32) {        \
    set_product(table, QuantType::k##name, kMatmul<QuantType::k##name>::multiply); \
  }
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE
}

}  // namespace
}  // namespace edgemoe::kernels
