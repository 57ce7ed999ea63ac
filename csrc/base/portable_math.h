// Elementary functions in float64 that give the same bits on every machine. Libraries differ in
// the last bit of log, exp, sin and cos, and a rotation angle reaches every logit. Plain double
// arithmetic in a fixed order, contraction off; errors below 2 ulp over the stated ranges.
#pragma once

namespace edgemoe {

// Natural logarithm. Requires: x is positive and normal.
double portable_log(double x) noexcept;
// e^x. Requires: |x| <= 700.
double portable_exp(double x) noexcept;

// log(1 + e^x), for any x; NaN stays NaN.
double portable_softplus(double x) noexcept;

struct SinCos {
  double sin;
  double cos;
};
// Requires: |x| < 2^30.
SinCos portable_sincos(double x) noexcept;

}  // namespace edgemoe
