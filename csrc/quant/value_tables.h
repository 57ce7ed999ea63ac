// Values that 4-bit codes stand for.
#pragma once

#include <cstdint>

namespace edgemoe {

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// E2M1 floats (OCP Microscaling Formats 1.0), doubled so that they are integers.
inline constexpr int8_t kFp4DoubledValues[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                 0, -1, -2, -3, -4, -6, -8, -12};

// The grid of IQ3_S has its values in nibbles.
inline constexpr int8_t kIq3SValues[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
// The values of the grid of IQ3_XXS by their quarter.
inline constexpr int8_t kIq3XxsValues[16] = {0,  4,  8,  12, 16, 20, 24, 28,
                                             32, 36, 40, 44, 48, 52, 56, 62};

}  // namespace edgemoe
