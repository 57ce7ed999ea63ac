// One layer of a step: attention, attention to an encoder's result, feed-forward network; each
// reads the residual stream work.x through a norm and adds to it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/forward.h"

namespace edgemoe {

// work.normed = the norm of `num_rows` rows of `x`; `bias` may be null.
void norm_rows(const Model& model, const float* x, const float* weight, const float* bias,
               size_t num_rows);

// Errors: kIo when an expert cannot be read.
void run_layer(const Model& model, StepContext& step, uint32_t layer, Phase phase);

}  // namespace edgemoe
