#include "bitwidth/activation_slopes.h"

namespace edgemoe {
namespace {

using kernels::Activation;

// The constants of kernels/generic/float_ops.inl.h.
constexpr float kGeluScale = 0x1.988454p+0f;
constexpr float kGeluCubic = 0.044715f;
constexpr float kOaiAlpha = 1.702f;

// a(g) and a'(g) of g * logistic(u), u' = du/dg.
struct Gated {
  double value;
  double slope;
};
Gated gated(double g, double logistic, double inner_slope) noexcept {
  return {g * logistic, logistic + g * logistic * (1.0 - logistic) * inner_slope};
}

}  // namespace

float logistic_input(Activation kind, float gate, float limit) noexcept {
  switch (kind) {
    case Activation::kSilu:
    case Activation::kSigmoid:
      return gate;
    case Activation::kGelu:
      return kGeluScale * gate * (kGeluCubic * gate * gate + 1.0f);
    case Activation::kSwigluOai:
      return kOaiAlpha * (gate > limit ? limit : gate);
    case Activation::kRelu:
    case Activation::kLinear:
    case Activation::kStep:
      return 0.0f;
  }
  return 0.0f;
}

HiddenSlopes hidden_slopes(Activation kind, float gate, float up, float logistic,
                           float limit) noexcept {
  const double g = gate;
  const double u = up;
  switch (kind) {
    case Activation::kSilu: {
      const Gated a = gated(g, logistic, 1.0);
      return {a.slope * u, a.value};
    }
    case Activation::kGelu: {
      const Gated a =
          gated(g, logistic, double{kGeluScale} * (1.0 + 3.0 * double{kGeluCubic} * g * g));
      return {a.slope * u, a.value};
    }
    case Activation::kRelu:
      return {gate > 0.0f ? u : 0.0, gate > 0.0f ? g : 0.0};
    case Activation::kSigmoid:
      return {logistic * (1.0 - logistic) * u, logistic};
    case Activation::kLinear:
      return {u, g};
    case Activation::kStep:
      return {0.0, gate > 0.0f ? 1.0 : 0.0};
    case Activation::kSwigluOai: {
      const Gated a = gated(gate > limit ? double{limit} : g, logistic, double{kOaiAlpha});
      const double kept_up = up > limit ? limit : up < -limit ? -limit : up;
      // What a limit cuts off answers to nothing.
      return {gate > limit ? 0.0 : a.slope * (kept_up + 1.0),
              up > limit || up < -limit ? 0.0 : a.value};
    }
  }
  return {0.0, 0.0};
}

}  // namespace edgemoe
