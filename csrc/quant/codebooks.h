// The grids of the IQ types: entry i of a grid with N elements is grid[i * N, (i + 1) * N).
#pragma once

#include <cstdint>

namespace edgemoe {

extern const int8_t kGridIq2Xxs[256 * 8];
extern const int8_t kGridIq2Xs[512 * 8];
extern const int8_t kGridIq2S[1024 * 8];
extern const int8_t kGridIq3Xxs[256 * 4];
extern const int8_t kGridIq3S[512 * 4];
extern const int8_t kGridIq1[2048 * 8];  // -1, 0, 1

}  // namespace edgemoe
