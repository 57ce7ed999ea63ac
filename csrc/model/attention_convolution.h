// The causal convolution of the recurrent kinds of attention, over the rows of a step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/step.h"

namespace edgemoe {

// Channels of row r at data + r * stride, replaced by their convolution. A sequence that starts
// here starts with a state of zeros: of the whole layer, matrices included.
void convolve_rows(const StepContext& step, uint32_t layer, float* data, size_t stride, bool silu);

}  // namespace edgemoe
