#include "model/router_input.h"

#include <cstring>

#include "model/norm.h"

namespace edgemoe {

void router_input(const StepContext& step, uint32_t layer, const float* x, float* out) noexcept {
  const LayerWeights& weights = step.weights.layer(layer);
  const kernels::KernelTable& table = step.compute.table();
  if (step.spec.router.reads_block_input) {
    std::memcpy(out, x, step.spec.width * sizeof(float));
  } else if (weights.router_norm != nullptr) {
    norm_row(step.spec, table, x, weights.router_norm, nullptr, out);
  } else if (weights.expert_norm != nullptr) {
    norm_row(step.spec, table, x, weights.expert_norm, nullptr, out);
  } else {
    norm_row(step.spec, table, x, weights.ffn_norm, weights.ffn_norm_bias, out);
  }
}

}  // namespace edgemoe
