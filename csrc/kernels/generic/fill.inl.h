// Fills a table with the generic loops, as compiled for the level that includes this file.
#pragma once

#include "kernels/generic/attend.inl.h"
#include "kernels/generic/float_ops.inl.h"
#include "kernels/generic/matmul_float.inl.h"
#include "kernels/generic/matmul_unpack.inl.h"
#include "kernels/generic/quantize.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline void fill_generic(KernelTable& table) noexcept {
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations)                              \
  static_assert(bytes <= kMaxBlockBytes);                                                       \
  table.matmul[static_cast<size_t>(QuantType::k##name)] = matmul_unpack<QuantType::k##name>;
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE
  table.matmul[static_cast<size_t>(QuantType::kF32)] = matmul_float<F32Element, 4>;
  table.matmul[static_cast<size_t>(QuantType::kF16)] = matmul_float<F16Element, 2>;
  table.matmul[static_cast<size_t>(QuantType::kBF16)] = matmul_float<Bf16Element, 2>;
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
}

}  // namespace
}  // namespace edgemoe::kernels
