// Which experts a token uses, and with what weights. Pure; every scoring variant is one function
// of the router's description.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernel_table.h"
#include "model/model_spec.h"

namespace edgemoe {

struct RoutedExpert {
  uint32_t expert = 0;
  float weight = 0;
};

// Chooses spec.num_used experts, best first; ties go to the lower number, NaN never wins.
// `logits` [num_experts] is overwritten with scores; `selection` [num_experts] is scratch;
// `selection_bias` (may be null) moves the choice, not the weights (DeepSeek-V3, arXiv 2412.19437).
void route(const RouterSpec& spec, const kernels::KernelTable& table, std::span<float> logits,
           const float* selection_bias, std::span<float> selection,
           std::span<RoutedExpert> chosen) noexcept;

// The two halves of route(): what they leave in between is a choice whose weights are scores, and
// in `selection` what the other experts that could be chosen would be ranked by (minus infinity for
// those that cannot).
void choose_experts(const RouterSpec& spec, const kernels::KernelTable& table,
                    std::span<float> logits, const float* selection_bias,
                    std::span<float> selection, std::span<RoutedExpert> chosen) noexcept;
void weigh_experts(const RouterSpec& spec, std::span<RoutedExpert> chosen) noexcept;

}  // namespace edgemoe
