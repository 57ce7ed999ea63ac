// Attention kinds. Each reads work.normed, extends the caches of the step's rows and leaves what it
// adds to the residual stream in work.branch.
#pragma once

#include <cstdint>

#include "model/step.h"

namespace edgemoe {

void attend_grouped(StepContext& step, uint32_t layer);
// The first half of it: only extends the caches, so that rows of later steps are seen too where
// attention is not causal.
void store_grouped(StepContext& step, uint32_t layer);
// MLA in the absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C).
void attend_latent(StepContext& step, uint32_t layer);

// Gates around a causal convolution (LFM2).
void attend_short_convolution(StepContext& step, uint32_t layer);
void attend_delta(StepContext& step, uint32_t layer);
void attend_mamba2(StepContext& step, uint32_t layer);
void attend_mamba(StepContext& step, uint32_t layer);

// Attention of a decoder's layer to what its encoder read.
void attend_cross(StepContext& step, uint32_t layer);
// Caches what `layer` of a decoder makes of the encoder's result: work.normed is that of the rows.
void store_cross(StepContext& step, uint32_t layer);

inline void attend(StepContext& step, uint32_t layer) {
  switch (step.spec.layers[layer].attention.kind) {
    case AttentionKind::kGrouped:
      return attend_grouped(step, layer);
    case AttentionKind::kLatent:
      return attend_latent(step, layer);
    case AttentionKind::kShortConvolution:
      return attend_short_convolution(step, layer);
    case AttentionKind::kDeltaNet:
      return attend_delta(step, layer);
    case AttentionKind::kMamba2:
      return attend_mamba2(step, layer);
    case AttentionKind::kMamba:
      return attend_mamba(step, layer);
    case AttentionKind::kNone:
      return;
  }
}

// First position that a query at `position` sees.
constexpr uint32_t window_begin(const AttentionSpec& attention, uint32_t position) noexcept {
  if (attention.window_is_chunk) return position / attention.window * attention.window;
  return attention.window != 0 && position + 1 > attention.window ? position + 1 - attention.window
                                                                  : 0;
}

// work.branch = attention_output . work.attended (+ bias), for all kinds but cross attention.
void project_attended(StepContext& step, uint32_t layer, size_t attended_size);

}  // namespace edgemoe
