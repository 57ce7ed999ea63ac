// What decoding teaches about routing: the token table of the first layers and, where it is asked
// for, the paper's transitions. Knows which layers have experts, and what the running step used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/section_file.h"
#include "experts/token_table.h"
#include "experts/transitions.h"

namespace edgemoe {

// One owner thread. Nothing is allocated after construction, but to save and to load.
class LearnedRouting {
 public:
  // Steps of more rows teach nothing: they are prompts, and would cost more than they tell.
  static constexpr size_t kMaxRows = 4;
  // The table covers the first so many layers with experts.
  static constexpr uint32_t kTableLayers = 3;
  static constexpr uint32_t kMaxTokens = 1u << 15;
  static constexpr uint32_t kMaxTableExperts = 16;  // of a token and layer; more are not remembered
  // Transitions grow with the square of the experts; what is kept between runs has a bound, too.
  static constexpr uint64_t kMaxTransitionsBytes = 32u << 20;

  struct Shape {
    std::vector<uint32_t> moe_layers;  // rising
    uint32_t num_experts = 0;
    uint32_t num_used = 0;
    uint32_t vocab_size = 0;
    bool transitions = false;
  };
  static bool transitions_fit(const Shape& shape) noexcept;
  static uint64_t bytes(const Shape& shape) noexcept;  // what an object takes, for the plan
  // Requires: at least one layer, and transitions only where they fit.
  explicit LearnedRouting(Shape shape);

  // A step of at most kMaxRows rows begins.
  void begin_step(std::span<const uint32_t> tokens) noexcept;
  // What a row of it uses in `layer`. Requires: layers come in rising order, each for all rows, and
  // no more than num_used experts.
  void learn(size_t row, uint32_t layer, std::span<const uint32_t> experts) noexcept;

  // What the row's token used last in `layer`; empty where that is not known.
  std::span<const uint16_t> of_token(size_t row, uint32_t layer) const noexcept;
  // What the row will use in `layer`, behind what it has used in this step up to `from`: num_used
  // experts, or none where transitions say nothing. Valid until the next call.
  std::span<const PredictedExpert> after(size_t row, uint32_t from, uint32_t layer) noexcept;

  // To be kept between runs.
  void save(Sections& sections) const;
  // Sections that are missing, damaged or of another model are ignored.
  void load(const Sections& sections) noexcept;

 private:
  static constexpr uint32_t kNoPlace = UINT32_MAX;
  // Index of `layer` among those with experts; kNoPlace for others.
  uint32_t place_of(uint32_t layer) const noexcept;
  // What the row used at a place among the last three of this step; empty before the first.
  std::span<const uint32_t> used(size_t row, uint32_t place, uint32_t layers_before) const noexcept;

  Shape shape_;
  TokenTable table_;
  std::optional<Transitions> transitions_;
  // Of the running step: the token of each row; then [row][place % kKept] and num_used experts.
  static constexpr uint32_t kKept = 3;
  std::vector<uint32_t> tokens_;
  std::vector<uint32_t> used_;
  std::vector<uint32_t> num_used_;
};

}  // namespace edgemoe
