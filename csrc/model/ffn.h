// Feed-forward networks. Each reads work.normed and leaves what it adds to the residual stream in
// work.branch.
#pragma once

#include <cstdint>

#include "experts/expert_store.h"
#include "model/regrouper.h"
#include "model/step.h"

namespace edgemoe {

void dense_ffn(StepContext& step, uint32_t layer);

// The one place where experts meet kernels. Errors: kIo when an expert cannot be read.
void moe_ffn(StepContext& step, uint32_t layer, ExpertStore& store, Regrouper& regrouper);

}  // namespace edgemoe
