#include "model/route_script.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace edgemoe {
namespace {

bool holds(std::span<const RoutedExpert> routed, uint32_t expert) noexcept {
  return std::any_of(routed.begin(), routed.end(),
                     [&](const RoutedExpert& one) { return one.expert == expert; });
}

bool is_product(size_t total, const RouteScript::Shape& shape) noexcept {
  size_t product = 1;
  for (const size_t size : {shape.num_steps, shape.num_layers, shape.num_ranks}) {
    if (size == 0 || product > std::numeric_limits<size_t>::max() / size) return false;
    product *= size;
  }
  return product == total;
}

}  // namespace

RouteScript::RouteScript(std::vector<int32_t> experts, const Shape& shape)
    : experts_(std::move(experts)), shape_(shape) {
  if (!is_product(experts_.size(), shape_)) {
    throw Error(ErrorCode::kArgument, "routing has " + std::to_string(experts_.size()) +
                                          " experts, not " + std::to_string(shape_.num_steps) +
                                          " steps x " + std::to_string(shape_.num_layers) +
                                          " layers x " + std::to_string(shape_.num_ranks) +
                                          " ranks, all of them 1 or more");
  }
}

void RouteScript::route(uint32_t position, uint32_t layer, uint32_t num_experts,
                        std::span<RoutedExpert> routed) const noexcept {
  const size_t step = (first_step_ + position) % shape_.num_steps;
  const size_t row = step * shape_.num_layers + layer % shape_.num_layers;
  const std::span<const int32_t> recorded(experts_.data() + row * shape_.num_ranks,
                                          shape_.num_ranks);
  const float weight = 1.0f / static_cast<float>(routed.size());
  uint32_t following = 0;
  for (size_t rank = 0; rank < routed.size(); ++rank) {
    uint32_t expert = following;
    if (rank < recorded.size() && recorded[rank] >= 0) {
      expert = static_cast<uint32_t>(recorded[rank]);
    }
    expert %= num_experts;
    while (holds(routed.first(rank), expert)) expert = (expert + 1) % num_experts;
    routed[rank] = {expert, weight};
    following = expert + 1;
  }
}

}  // namespace edgemoe
