#include "bitwidth/activation_slopes.h"

#include <algorithm>
#include <cmath>

#include "kernels/dispatch.h"
#include "test.h"

namespace edgemoe {
namespace {

using kernels::Activation;

constexpr float kLimit = 7.0f;
constexpr Activation kAll[] = {Activation::kSilu,      Activation::kGelu,    Activation::kRelu,
                               Activation::kSwigluOai, Activation::kSigmoid, Activation::kLinear,
                               Activation::kStep};

// h in float64, independent of the kernels.
double hidden(Activation kind, double gate, double up) {
  const auto logistic = [](double u) { return 1.0 / (1.0 + std::exp(-u)); };
  switch (kind) {
    case Activation::kSilu:
      return gate * logistic(gate) * up;
    case Activation::kGelu: {
      const double inner =
          std::sqrt(2.0 / 3.14159265358979) * (gate + 0.044715 * gate * gate * gate);
      return 0.5 * gate * (1.0 + std::tanh(inner)) * up;
    }
    case Activation::kRelu:
      return std::max(gate, 0.0) * up;
    case Activation::kSigmoid:
      return logistic(gate) * up;
    case Activation::kLinear:
      return gate * up;
    case Activation::kStep:
      return gate > 0.0 ? up : 0.0;
    case Activation::kSwigluOai: {
      const double kept = std::min(gate, double{kLimit});
      return (std::clamp(up, -double{kLimit}, double{kLimit}) + 1.0) * kept *
             logistic(1.702 * kept);
    }
  }
  return 0.0;
}

HiddenSlopes slopes(Activation kind, float gate, float up) {
  float logistic = logistic_input(kind, gate, kLimit);
  kernels::table_by_name("scalar").sigmoid(&logistic, 1);
  return hidden_slopes(kind, gate, up, logistic, kLimit);
}

TEST("slopes of the hidden value are those of its difference quotients") {
  constexpr double kStep = 1e-5;
  for (const Activation kind : kAll) {
    for (float gate = -9.3f; gate < 9.5f; gate += 0.37f) {
      for (float up = -8.9f; up < 9.0f; up += 1.3f) {
        const HiddenSlopes found = slopes(kind, gate, up);
        const double of_gate =
            (hidden(kind, gate + kStep, up) - hidden(kind, gate - kStep, up)) / (2 * kStep);
        const double of_up =
            (hidden(kind, gate, up + kStep) - hidden(kind, gate, up - kStep)) / (2 * kStep);
        // The logistic is a float32: relative errors of some 2^-22 times up to 10 x 10.
        CHECK(std::abs(found.of_gate - of_gate) < 1e-4);
        CHECK(std::abs(found.of_up - of_up) < 1e-4);
      }
    }
  }
}

TEST("far from zero the slopes are those of the asymptotes") {
  for (const Activation kind : {Activation::kSilu, Activation::kGelu, Activation::kRelu}) {
    CHECK(std::abs(slopes(kind, 80.0f, 2.0f).of_gate - 2.0) < 1e-6);
    CHECK(std::abs(slopes(kind, -80.0f, 2.0f).of_gate) < 1e-6);
    CHECK(std::abs(slopes(kind, 80.0f, 2.0f).of_up - 80.0) < 1e-4);
  }
  CHECK_EQUAL(slopes(Activation::kSwigluOai, 80.0f, 2.0f).of_gate, 0.0);
  CHECK_EQUAL(slopes(Activation::kSwigluOai, 1.0f, 8.0f).of_up, 0.0);
}

}  // namespace
}  // namespace edgemoe
