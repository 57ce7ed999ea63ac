// Values that 4-bit codes stand for.
#pragma once

#include <cstdint>

namespace edgemoe {

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// E2M1 floats (OCP Microscaling Formats 1.0), doubled so that they are integers.
inline constexpr int8_t kFp4DoubledValues[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace edgemoe
