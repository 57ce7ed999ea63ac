// The grids of the IQ types, ordered for searches. Entries are cut in halves: the error of an entry
// is the sum of the errors of its halves, of which there are few. Entries with the same second half
// are a run, so that the least error of a run is
//
//   error(second half) + least of error(first half) over the run
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgemoe {

// Half h of a grid with the values v[0..n): digits of h in base n, the first element's the lowest.
struct GridRun {
  uint16_t second;  // the half that the run has in common
  uint16_t begin;   // of the entries
  uint16_t end;
};

// Runs have an even number of entries: an odd one has its last entry twice.
template <size_t kEntries, size_t kHalves>
struct SearchGrid {
  static constexpr size_t kMostEntries = kEntries + kHalves;

  size_t num_runs;
  GridRun runs[kHalves];          // shorter runs first
  uint16_t first[kMostEntries];   // the other half of each entry
  uint16_t number[kMostEntries];  // of the entry in its grid
};

struct SearchGrids {
  SearchGrid<256, 81> iq2_xxs;
  SearchGrid<512, 81> iq2_xs;
  SearchGrid<1024, 81> iq2_s;
  SearchGrid<256, 64> iq3_xxs;
  SearchGrid<512, 64> iq3_s;
};

// Made when first asked for; any thread.
const SearchGrids& search_grids() noexcept;

}  // namespace edgemoe
