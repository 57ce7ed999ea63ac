// Who guesses which experts later layers will use.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace edgemoe {

enum class Predictor : uint8_t {
  kRouter,       // the routers of later layers, early; a token table for the first layers
  kTransitions,  // what followed the experts of the two layers before, and the token table
  kRouterOnly,   // the routers alone; nothing is learned
};

struct PredictorName {
  Predictor predictor;
  std::string_view name;  // "router", "transitions", "router-only"
};
std::span<const PredictorName> predictors() noexcept;
// Errors: kArgument for an unknown name, listing the known ones.
Predictor predictor_from_name(std::string_view name);
std::string_view name_of(Predictor predictor) noexcept;

}  // namespace edgemoe
