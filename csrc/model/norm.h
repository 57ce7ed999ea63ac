// The norm of a model's residual stream.
#pragma once

#include "kernels/kernel_table.h"
#include "model/model_spec.h"

namespace edgemoe {

// Rows are spec.width floats; weight and bias may be null; out may be x.
inline void norm_row(const ModelSpec& spec, const kernels::KernelTable& table, const float* x,
                     const float* weight, const float* bias, float* out) noexcept {
  const auto norm = spec.norm == NormKind::kRms ? table.rms_norm : table.layer_norm;
  norm(x, weight, bias, spec.width, spec.norm_epsilon, out);
}

}  // namespace edgemoe
