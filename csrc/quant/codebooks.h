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

// Entries of 4 values once more, as 4 nibbles each, the first lowest. A nibble is the value divided
// by 4, or the value.
alignas(64) extern const uint16_t kNibblesIq3Xxs[256];
alignas(64) extern const uint16_t kNibblesIq3S[512];

}  // namespace edgemoe
