#include "base/portable_math.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace edgemoe {
namespace {

// ln 2 and pi/2 in pieces whose leading parts have trailing zeros, so that products with small
// integers are exact (Cody and Waite).
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kHalfPi1 = 0x1.921fb50000000p+0;
constexpr double kHalfPi2 = 0x1.110b460000000p-26;
constexpr double kHalfPi3 = 0x1.1a62633145c07p-54;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;

// Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, ties to even.
double round_to_integer(double x) noexcept {
  constexpr double kShift = 0x1.8p52;
  return (x + kShift) - kShift;
}

// coefficients[0] + x * (coefficients[1] + x * (...))
template <size_t kCount>
double polynomial(const double (&coefficients)[kCount], double x) noexcept {
  double value = coefficients[kCount - 1];
  for (size_t i = kCount - 1; i-- > 0;) value = value * x + coefficients[i];
  return value;
}

double power_of_two(int exponent) noexcept {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

}  // namespace

double portable_log(double x) noexcept {
  constexpr uint64_t kFraction = (uint64_t{1} << 52) - 1;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & kFraction) | (uint64_t{1023} << 52));
  if (mantissa > 0x1.6a09e667f3bcdp+0) {  // sqrt(2): keeps |t| below 0.172
    mantissa *= 0.5;
    ++exponent;
  }
  // ln m = 2 artanh(t), t = (m - 1) / (m + 1)
  constexpr double kSeries[] = {1.0,        1.0 / 3.0,  1.0 / 5.0,  1.0 / 7.0,  1.0 / 9.0,
                                1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0, 1.0 / 17.0, 1.0 / 19.0,
                                1.0 / 21.0, 1.0 / 23.0, 1.0 / 25.0};
  const double t = (mantissa - 1.0) / (mantissa + 1.0);
  const double n = static_cast<double>(exponent);
  return n * kLn2High + (n * kLn2Low + 2.0 * t * polynomial(kSeries, t * t));
}

double portable_exp(double x) noexcept {
  constexpr double kSeries[] = {1.0,
                                1.0,
                                1.0 / 2.0,
                                1.0 / 6.0,
                                1.0 / 24.0,
                                1.0 / 120.0,
                                1.0 / 720.0,
                                1.0 / 5040.0,
                                1.0 / 40320.0,
                                1.0 / 362880.0,
                                1.0 / 3628800.0,
                                1.0 / 39916800.0,
                                1.0 / 479001600.0,
                                1.0 / 6227020800.0};
  const double n = round_to_integer(x * 0x1.71547652b82fep+0);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  return polynomial(kSeries, r) * power_of_two(static_cast<int>(n));
}

double portable_softplus(double x) noexcept {
  if (!(x <= 40.0)) return x;
  if (x < -700.0) return 0.0;
  const double e = portable_exp(x);
  return x < -30.0 ? e : portable_log(1.0 + e);
}

SinCos portable_sincos(double x) noexcept {
  constexpr double kSine[] = {1.0,
                              -1.0 / 6.0,
                              1.0 / 120.0,
                              -1.0 / 5040.0,
                              1.0 / 362880.0,
                              -1.0 / 39916800.0,
                              1.0 / 6227020800.0,
                              -1.0 / 1307674368000.0,
                              1.0 / 355687428096000.0};
  constexpr double kCosine[] = {1.0,
                                -1.0 / 2.0,
                                1.0 / 24.0,
                                -1.0 / 720.0,
                                1.0 / 40320.0,
                                -1.0 / 3628800.0,
                                1.0 / 479001600.0,
                                -1.0 / 87178291200.0,
                                1.0 / 20922789888000.0};
  const double n = round_to_integer(x * kTwoOverPi);
  const double r = ((x - n * kHalfPi1) - n * kHalfPi2) - n * kHalfPi3;
  const double sine = r * polynomial(kSine, r * r);
  const double cosine = polynomial(kCosine, r * r);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace edgemoe
