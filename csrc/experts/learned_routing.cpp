#include "experts/learned_routing.h"

#include <algorithm>

#include "base/error.h"

namespace edgemoe {
namespace {

constexpr const char* kTable = "experts of tokens";
constexpr const char* kTransitions = "transitions of experts";

uint32_t num_layers(const LearnedRouting::Shape& shape) noexcept {
  return static_cast<uint32_t>(shape.moe_layers.size());
}
uint32_t table_layers(const LearnedRouting::Shape& shape) noexcept {
  return std::min(num_layers(shape), LearnedRouting::kTableLayers);
}
uint32_t table_experts(const LearnedRouting::Shape& shape) noexcept {
  return std::min(shape.num_used, LearnedRouting::kMaxTableExperts);
}
uint32_t table_tokens(const LearnedRouting::Shape& shape) noexcept {
  return std::clamp(shape.vocab_size, 1u, LearnedRouting::kMaxTokens);
}

}  // namespace

bool LearnedRouting::transitions_fit(const Shape& shape) noexcept {
  return Transitions::bytes(num_layers(shape), shape.num_experts) <= kMaxTransitionsBytes;
}

uint64_t LearnedRouting::bytes(const Shape& shape) noexcept {
  const uint64_t transitions =
      shape.transitions ? Transitions::bytes(num_layers(shape), shape.num_experts) : 0;
  return transitions +
         TokenTable::bytes(table_layers(shape), table_experts(shape), table_tokens(shape)) +
         kMaxRows * kKept * shape.num_used * sizeof(uint32_t);
}

LearnedRouting::LearnedRouting(Shape shape)
    : shape_(std::move(shape)),
      table_(table_layers(shape_), table_experts(shape_), table_tokens(shape_)),
      used_(kMaxRows * kKept * shape_.num_used),
      num_used_(kMaxRows * kKept) {
  EM_CHECK(!shape_.moe_layers.empty());
  tokens_.reserve(kMaxRows);
  if (!shape_.transitions) return;
  EM_CHECK(transitions_fit(shape_));
  transitions_.emplace(num_layers(shape_), shape_.num_experts);
}

uint32_t LearnedRouting::place_of(uint32_t layer) const noexcept {
  const std::vector<uint32_t>& layers = shape_.moe_layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  if (found == layers.end() || *found != layer) return kNoPlace;
  return static_cast<uint32_t>(found - layers.begin());
}

std::span<const uint32_t> LearnedRouting::used(size_t row, uint32_t place,
                                               uint32_t layers_before) const noexcept {
  if (place < layers_before) return {};
  const size_t index = row * kKept + (place - layers_before) % kKept;
  return std::span<const uint32_t>(used_).subspan(index * shape_.num_used, num_used_[index]);
}

void LearnedRouting::begin_step(std::span<const uint32_t> tokens) noexcept {
  EM_ASSERT(tokens.size() <= kMaxRows);
  tokens_.assign(tokens.begin(), tokens.end());
}

void LearnedRouting::learn(size_t row, uint32_t layer, std::span<const uint32_t> experts) noexcept {
  EM_ASSERT(row < tokens_.size() && experts.size() <= shape_.num_used);
  const uint32_t place = place_of(layer);
  if (place == kNoPlace) return;
  if (place < table_layers(shape_)) table_.learn(tokens_[row], place, experts);
  if (!transitions_) return;
  const size_t index = row * kKept + place % kKept;
  std::copy(experts.begin(), experts.end(),
            used_.begin() + static_cast<ptrdiff_t>(index * shape_.num_used));
  num_used_[index] = static_cast<uint32_t>(experts.size());
  transitions_->learn(place, experts, used(row, place, 1), used(row, place, 2));
}

std::span<const uint16_t> LearnedRouting::of_token(size_t row, uint32_t layer) const noexcept {
  EM_ASSERT(row < tokens_.size());
  const uint32_t place = place_of(layer);
  return place == kNoPlace ? std::span<const uint16_t>() : table_.predict(tokens_[row], place);
}

std::span<const PredictedExpert> LearnedRouting::after(size_t row, uint32_t from,
                                                       uint32_t layer) noexcept {
  const uint32_t place = place_of(layer);
  const uint32_t last = place_of(from);
  if (!transitions_ || place == kNoPlace || last == kNoPlace || place <= last) return {};
  switch (place - last) {
    case 1:
      return transitions_->predict(place, used(row, last, 0), used(row, last, 1), shape_.num_used);
    case 2:
      return transitions_->predict(place, {}, used(row, last, 0), shape_.num_used);
    default:
      return {};
  }
}

void LearnedRouting::save(Sections& sections) const {
  sections[kTable] = table_.save();
  if (transitions_) sections[kTransitions] = transitions_->save();
}

void LearnedRouting::load(const Sections& sections) noexcept {
  if (const auto found = sections.find(kTable); found != sections.end()) table_.load(found->second);
  const auto found = sections.find(kTransitions);
  if (transitions_ && found != sections.end()) transitions_->load(found->second);
}

}  // namespace edgemoe
