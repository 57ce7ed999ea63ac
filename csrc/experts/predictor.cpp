#include "experts/predictor.h"

#include <algorithm>

#include "base/named_row.h"

namespace edgemoe {
namespace {

constexpr PredictorName kPredictors[] = {
    {Predictor::kRouter, "router"},
    {Predictor::kTransitions, "transitions"},
    {Predictor::kRouterOnly, "router-only"},
};

}  // namespace

std::span<const PredictorName> predictors() noexcept {
  return kPredictors;
}

Predictor predictor_from_name(std::string_view name) {
  return row_named(predictors(), "predictor", name).predictor;
}

std::string_view name_of(Predictor predictor) noexcept {
  const auto row =
      std::find_if(std::begin(kPredictors), std::end(kPredictors),
                   [&](const PredictorName& one) { return one.predictor == predictor; });
  return row == std::end(kPredictors) ? std::string_view() : row->name;
}

}  // namespace edgemoe
