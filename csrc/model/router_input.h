// What the router of a layer looks at, for the layer itself and for those that guess what it will
// choose: the same function, so that a guess on a layer's own input is what the layer does.
#pragma once

#include <cstdint>

#include "model/step.h"

namespace edgemoe {

// One row from a row of the residual stream; out is not x. Requires: the layer has experts.
void router_input(const StepContext& step, uint32_t layer, const float* x, float* out) noexcept;

}  // namespace edgemoe
