// Values that 4-bit codes stand for.
#pragma once

#include <cstdint>

namespace edgemoe {

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// E2M1 floats (OCP Microscaling Formats 1.0), doubled so that they are integers.
inline constexpr int8_t kFp4DoubledValues[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                 0, -1, -2, -3, -4, -6, -8, -12};

// The values in the grids, lowest first.
inline constexpr int8_t kIq2GridValues[3] = {8, 25, 43};
inline constexpr int8_t kIq3XxsGridValues[8] = {4, 12, 20, 28, 36, 44, 52, 62};
inline constexpr int8_t kIq3SGridValues[8] = {1, 3, 5, 7, 9, 11, 13, 15};

// The grid of IQ3_S has its values in nibbles.
inline constexpr int8_t kIq3SValues[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
// The values of the grid of IQ3_XXS by their quarter.
inline constexpr int8_t kIq3XxsValues[16] = {0,  4,  8,  12, 16, 20, 24, 28,
                                             32, 36, 40, 44, 48, 52, 56, 62};

}  // namespace edgemoe
