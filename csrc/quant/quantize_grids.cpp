#include "quant/quantize_grids.h"

#include <algorithm>
#include <array>
#include <span>

#include "quant/codebooks.h"
#include "quant/value_tables.h"

namespace edgemoe {
namespace {

// A grid as codebooks.h has it.
struct Grid {
  const int8_t* elements;
  size_t dimensions;
  std::span<const int8_t> values;
};

uint16_t half_of(const Grid& grid, size_t entry, bool second) noexcept {
  const size_t count = grid.dimensions / 2;
  const int8_t* elements = grid.elements + entry * grid.dimensions + (second ? count : 0);
  size_t half = 0;
  for (size_t i = count; i-- > 0;) {
    const auto digit =
        std::find(grid.values.begin(), grid.values.end(), elements[i]) - grid.values.begin();
    half = half * grid.values.size() + static_cast<size_t>(digit);
  }
  return static_cast<uint16_t>(half);
}

template <size_t kEntries, size_t kHalves>
void order(const Grid& grid, SearchGrid<kEntries, kHalves>& to) noexcept {
  std::array<uint16_t, kEntries> second;
  std::array<uint16_t, kHalves> count{};
  for (size_t entry = 0; entry < kEntries; ++entry) {
    second[entry] = half_of(grid, entry, true);
    ++count[second[entry]];
  }
  std::array<uint16_t, kHalves> halves;
  for (size_t half = 0; half < kHalves; ++half) halves[half] = static_cast<uint16_t>(half);
  std::stable_sort(halves.begin(), halves.end(),
                   [&](uint16_t a, uint16_t b) { return (count[a] + 1) / 2 < (count[b] + 1) / 2; });
  size_t at = 0;
  for (const uint16_t half : halves) {
    if (count[half] == 0) continue;
    GridRun& run = to.runs[to.num_runs++];
    run.second = half;
    run.begin = static_cast<uint16_t>(at);
    for (size_t entry = 0; entry < kEntries; ++entry) {
      if (second[entry] != half) continue;
      to.first[at] = half_of(grid, entry, false);
      to.number[at++] = static_cast<uint16_t>(entry);
    }
    if ((at - run.begin) % 2 != 0) {
      to.first[at] = to.first[at - 1];
      to.number[at] = to.number[at - 1];
      ++at;
    }
    run.end = static_cast<uint16_t>(at);
  }
}

}  // namespace

const SearchGrids& search_grids() noexcept {
  static const SearchGrids grids = [] {
    SearchGrids made{};
    order({kGridIq2Xxs, 8, kIq2GridValues}, made.iq2_xxs);
    order({kGridIq2Xs, 8, kIq2GridValues}, made.iq2_xs);
    order({kGridIq2S, 8, kIq2GridValues}, made.iq2_s);
    order({kGridIq3Xxs, 4, kIq3XxsGridValues}, made.iq3_xxs);
    order({kGridIq3S, 4, kIq3SGridValues}, made.iq3_s);
    return made;
  }();
  return grids;
}

}  // namespace edgemoe
