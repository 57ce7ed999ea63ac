// What the architecture's name alone tells: facts that neither metadata nor tensors carry.
// The only file pair that knows architecture names.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/model_spec.h"

namespace edgemoe {

enum class Renormalise : uint8_t { kNo, kYes, kFromMetadata };

// Which layers see only a window, where metadata gives its width and nothing else.
enum class WindowPattern : uint8_t { kNone, kEvenLayers };

struct ArchitectureRow {
  std::string_view name;  // general.architecture
  AttentionKind attention = AttentionKind::kGrouped;
  RopePairs rope = RopePairs::kHalves;
  RouterScore score = RouterScore::kSoftmax;  // when expert_gating_func is absent
  Renormalise renormalise = Renormalise::kYes;
  kernels::Activation activation = kernels::Activation::kSilu;
  float activation_limit = 0;
  WindowPattern window = WindowPattern::kNone;
  bool scales_attention_by_yarn = false;  // YaRN acts on the attention scale, not on the rotation
};

std::span<const ArchitectureRow> architectures() noexcept;
// Null when the name is not in the table.
const ArchitectureRow* find_architecture(std::string_view name) noexcept;

}  // namespace edgemoe
