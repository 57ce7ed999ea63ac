#include "base/portable_math.h"

#include <cmath>

#include "test.h"

namespace edgemoe {
namespace {

// A few units in the last place, relative for log and exp, absolute for values within [-1, 1].
constexpr double kBound = 8 * 0x1p-53;

TEST("portable log and exp agree with the library") {
  for (double x = 1e-6; x < 1e9; x *= 1.37) {
    CHECK(std::abs(portable_log(x) - std::log(x)) <= kBound * std::max(1.0, std::abs(std::log(x))));
  }
  for (double x = -600; x < 600; x += 3.17) {
    CHECK(std::abs(portable_exp(x) / std::exp(x) - 1.0) <= kBound);
  }
}

TEST("portable sine and cosine agree with the library up to a million radians") {
  for (double x = 1e-9; x < 1.1e6; x *= 1.0137) {
    const SinCos value = portable_sincos(x);
    CHECK(std::abs(value.sin - std::sin(x)) <= kBound);
    CHECK(std::abs(value.cos - std::cos(x)) <= kBound);
  }
  CHECK_EQUAL(portable_sincos(0.0).sin, 0.0);
  CHECK_EQUAL(portable_sincos(0.0).cos, 1.0);
}

}  // namespace
}  // namespace edgemoe
