// What a model is to be packed into.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quant/quant_type.h"
#include "weights/expert_layout.h"

namespace edgemoe {

enum class PackFormat : uint8_t {
  kContainer,  // one tensor per expert matrix, in the in-memory layout (docs/format.md)
  kStock,      // one tensor for all experts of a layer, as every engine reads
};

// Factors of covariances H for error feedback (quant/error_feedback.h). Borrowed.
struct PackFeedback {
  std::span<const float> upper;     // [num_layers][per_layer][columns][columns]
  std::span<const float> pivots;    // D, [num_layers][per_layer][columns]
  std::span<const float> diagonal;  // of H, the same
  uint64_t per_layer = 0;  // num_experts; or 1, to be scaled to each expert's importance; or 0
};

// How much the error of each column of a matrix counts: non-negative numbers of which only the
// ratios matter. Borrowed.
struct PackImportance {
  // Of the gate and up matrices and of the down matrix: [num_layers, num_experts, columns].
  std::span<const float> expert_input;
  std::span<const float> expert_hidden;
  PackFeedback input_feedback;   // of gate and up
  PackFeedback hidden_feedback;  // of down
  // By the source's tensor names, dense tensors and stacks of experts alike: [matrices, columns].
  std::map<std::string, std::span<const float>, std::less<>> tensors;
};

using ExpertTypes = std::array<QuantType, kNumExpertMatrices>;  // gate, up, down

struct PackRequest {
  std::string output;
  PackFormat format = PackFormat::kContainer;
  // By layer, then expert. Layers without experts are not looked at.
  std::vector<ExpertTypes> expert_types;
  // Likewise of low copies, in containers; nothing for experts without one. Empty: there are none.
  std::vector<std::optional<ExpertTypes>> low_types;
  std::map<std::string, QuantType, std::less<>> dense_types;  // others keep the source's
  PackImportance importance;
  // Values that are set in the metadata, as gguf_value() makes them.
  std::vector<std::pair<std::string, std::string>> metadata;
  uint32_t num_threads = 1;
  uint64_t memory_bytes = 0;     // bound of the process
  uint64_t max_shard_bytes = 0;  // 0: one file
  bool overwrite = false;        // files of the output's names
  bool resume = true;            // what an interrupted run left
};

struct PackProgress {
  uint64_t weights_done = 0;
  uint64_t num_weights = 0;
  uint64_t resumed_weights = 0;  // of those done: by an earlier run
};
// Called now and then by the thread that packs; true stops.
using PackWatcher = std::function<bool(const PackProgress&)>;

// Weights that got a new type: sqrt of the mean over their tensors (weighted by size) of
// sum importance * (weight - packed)^2 / sum importance * weight^2.
struct PackLoss {
  QuantType type = QuantType::kF32;
  uint64_t num_weights = 0;
  double relative_error = 0;
  bool from_quantized = false;  // some of them were quantised already
};

struct PackResult {
  std::vector<std::string> paths;
  uint64_t output_bytes = 0;
  uint64_t expert_weights = 0;
  uint64_t expert_bytes = 0;  // without padding
  uint64_t num_low_copies = 0;
  uint64_t low_copy_weights = 0;
  uint64_t low_copy_bytes = 0;
  uint64_t dense_weights = 0;
  uint64_t dense_bytes = 0;
  std::vector<PackLoss> losses;  // by type, in the order of the list of types
  // Of this run alone:
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t num_weights = 0;
  uint64_t quantized_weights = 0;
  uint64_t resumed_weights = 0;
  double seconds = 0;
};

}  // namespace edgemoe
