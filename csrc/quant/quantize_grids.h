// The grids of the IQ types, cut in halves for searches: the cost of an entry is the sum of the
// costs of its halves, of which there are few.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgemoe {

// Half h of a grid with the values v[0..n): digits of h in base n, the first element's the lowest.
struct GridEntry {
  uint16_t low;   // the first half of the elements
  uint16_t high;  // the second
};

struct GridHalves {
  GridEntry iq2_xxs[256];
  GridEntry iq2_xs[512];
  GridEntry iq2_s[1024];
  GridEntry iq3_xxs[256];
  GridEntry iq3_s[512];
};

// Made when first asked for; any thread.
const GridHalves& grid_halves() noexcept;

}  // namespace edgemoe
