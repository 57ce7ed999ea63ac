#include "quant/quantize_grids.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "quant/codebooks.h"
#include "quant/value_tables.h"

namespace edgemoe {
namespace {

uint16_t half_of(const int8_t* elements, size_t count, std::span<const int8_t> values) noexcept {
  size_t half = 0;
  for (size_t i = count; i-- > 0;) {
    const auto digit = std::find(values.begin(), values.end(), elements[i]) - values.begin();
    half = half * values.size() + static_cast<size_t>(digit);
  }
  return static_cast<uint16_t>(half);
}

void cut(const int8_t* grid, size_t dimensions, std::span<const int8_t> values,
         std::span<GridEntry> entries) noexcept {
  for (size_t entry = 0; entry < entries.size(); ++entry) {
    const int8_t* elements = grid + entry * dimensions;
    entries[entry].low = half_of(elements, dimensions / 2, values);
    entries[entry].high = half_of(elements + dimensions / 2, dimensions / 2, values);
  }
}

}  // namespace

const GridHalves& grid_halves() noexcept {
  static const GridHalves halves = [] {
    GridHalves made{};
    cut(kGridIq2Xxs, 8, kIq2GridValues, made.iq2_xxs);
    cut(kGridIq2Xs, 8, kIq2GridValues, made.iq2_xs);
    cut(kGridIq2S, 8, kIq2GridValues, made.iq2_s);
    cut(kGridIq3Xxs, 4, kIq3XxsGridValues, made.iq3_xxs);
    cut(kGridIq3S, 4, kIq3SGridValues, made.iq3_s);
    return made;
  }();
  return halves;
}

}  // namespace edgemoe
