// The paper's predictor: which experts follow those of the two layers before, learned from routing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edgemoe {

struct PredictedExpert {
  uint32_t expert = 0;
  float score = 0;  // share of the odds: they sum to 1 over all experts of the layer
};

// The paper keeps a table from the experts of two layers to those of the next one. With top-8 of
// 128 such a table has more keys than a run has tokens, so the key is taken apart: one count for
// each pair of experts, one of the layer and one of a layer before, and the pairs vote.
//
// Counts are bytes. A row that is full is halved, which bounds memory and forgets slowly.
// Deterministic; nothing is allocated after construction, but for save().
class Transitions {
 public:
  Transitions(uint32_t num_layers, uint32_t num_experts);
  // What an object takes, for the memory plan.
  static uint64_t bytes(uint32_t num_layers, uint32_t num_experts) noexcept;

  // The experts that one token used in `layer`; `previous` those of the layer with experts before,
  // `before_previous` of the one before that; empty where there is none.
  // Requires: layer and experts within the model.
  void learn(uint32_t layer, std::span<const uint32_t> experts, std::span<const uint32_t> previous,
             std::span<const uint32_t> before_previous) noexcept;

  // At most `most` experts, falling by score, the lower number first among equals. The span is
  // valid until the next call. Empty until the layer was seen.
  std::span<const PredictedExpert> predict(uint32_t layer, std::span<const uint32_t> previous,
                                           std::span<const uint32_t> before_previous,
                                           uint32_t most) noexcept;

  // What was learned, with version and checksum.
  std::vector<std::byte> save() const;
  // False, and nothing changes, when the bytes are damaged or of another version or model.
  bool load(std::span<const std::byte> saved) noexcept;

 private:
  // Age 0: used in the layer at all; 1 and 2: together with `from` of that many layers before.
  std::span<uint8_t> row(uint32_t layer, uint32_t age, uint32_t from) noexcept;
  void count(uint32_t layer, uint32_t age, uint32_t from,
             std::span<const uint32_t> experts) noexcept;
  void vote(uint32_t layer, uint32_t age, std::span<const uint32_t> from,
            std::span<double> odds) noexcept;

  uint32_t num_layers_;
  uint32_t num_experts_;
  // For each layer: a row of its own, then a row for each expert of each age. A row has a byte for
  // each expert and, last, one for the tokens that it counted.
  std::vector<uint8_t> counts_;
  // Scratch of predict().
  std::vector<double> chances_;  // of each expert, whatever came before
  std::vector<double> odds_;
  std::vector<PredictedExpert> ranking_;
};

}  // namespace edgemoe
