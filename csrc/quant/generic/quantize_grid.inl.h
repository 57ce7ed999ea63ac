// The IQ types of 2 and 3 bits: groups of magnitudes are entries of a grid, signs are bits, and
// each sub-block has a scale of 4 bits, d * (2 * scale + 1).
//
// Under a given scale the best entry is found exactly. The squared error of an entry is the sum of
// those of its halves; there are 81 (three values, four elements) or 64 (eight values, two
// elements) of those, so that an entry costs one addition and one comparison.
#pragma once

#include "quant/generic/quantize_tile.inl.h"
#include "quant/quantize_grids.h"
#include "quant/value_tables.h"

namespace edgemoe {
namespace {

inline constexpr size_t kSignGroup = 8;

struct Iq2Values {
  static constexpr size_t kDimensions = 8;
  static constexpr size_t kValues = 3;
  static constexpr size_t kHalves = 81;
  static constexpr const int8_t (&values)[kValues] = kIq2GridValues;
  // About the best scale for weights with a root mean square of 1.
  static constexpr float kScale = 0.062f;
  EDGEMOE_LANES static Floats nearest_value(Floats value) noexcept {
    return 8.0f + where(value > 16.5f, splat(17.0f)) + where(value > 34.0f, splat(18.0f));
  }
};

struct Iq3XxsValues {
  static constexpr size_t kDimensions = 4;
  static constexpr size_t kValues = 8;
  static constexpr size_t kHalves = 64;
  static constexpr const int8_t (&values)[kValues] = kIq3XxsGridValues;
  static constexpr float kScale = 0.038f;
  // As if the highest value were 60, not 62.
  EDGEMOE_LANES static Floats nearest_value(Floats value) noexcept {
    return 8.0f * nearest(clamp(value * 0.125f - 0.5f, 0, 7)) + 4.0f;
  }
};

struct Iq3SValues {
  static constexpr size_t kDimensions = 4;
  static constexpr size_t kValues = 8;
  static constexpr size_t kHalves = 64;
  static constexpr const int8_t (&values)[kValues] = kIq3SGridValues;
  static constexpr float kScale = 0.148f;
  EDGEMOE_LANES static Floats nearest_value(Floats value) noexcept {
    return 2.0f * nearest(clamp(value * 0.5f - 0.5f, 0, 7)) + 1.0f;
  }
};

// A type: its values, entries, the number of sub-blocks, and whether the signs of eight weights are
// seven bits and their parity.
template <class ValuesOf, size_t kEntriesOf, size_t kSubsOf, bool kParityOf>
struct GridType : ValuesOf {
  using Search = SearchGrid<kEntriesOf, ValuesOf::kHalves>;
  static constexpr size_t kSubs = kSubsOf;
  static constexpr bool kParity = kParityOf;
  static constexpr size_t kSlots = kUnitElements / kSubsOf / ValuesOf::kDimensions;
};

// Magnitudes of a unit with their signs apart. A weight whose sign had to change for the parity is
// negative here.
template <class Type>
struct Magnitudes {
  Tile<Type::kSubs> tile;
  uint8_t signs[kUnitElements / kSignGroup];  // by group of 8 in a sub-block, then by sub-block
};

// Makes the number of negative weights of eight even: the weight that matters least changes sign.
template <size_t kSubs>
EDGEMOE_LANES void make_even(const Tile<kSubs>& tile, size_t at,
                             Integers (&negative)[kSignGroup]) noexcept {
  Integers odd{};
  Floats least = splat(3e38f);
  Integers which{};
  for (size_t i = 0; i < kSignGroup; ++i) {
    const Floats weight = load(tile.weights + at + i * kSubs);
    const Floats loss = load(tile.importance + at + i * kSubs) * weight * weight;
    const Integers less = loss < least;
    least = less ? loss : least;
    which = less ? Integers{} + static_cast<int32_t>(i) : which;
    odd ^= negative[i];
  }
  for (size_t i = 0; i < kSignGroup; ++i) {
    negative[i] ^= odd & (which == static_cast<int32_t>(i));
  }
}

template <class Type>
inline void split_signs(Magnitudes<Type>& unit) noexcept {
  constexpr size_t kSubs = Type::kSubs;
  Tile<kSubs>& tile = unit.tile;
  for (size_t group = 0; group < Tile<kSubs>::kElements / kSignGroup; ++group) {
    for (size_t first = 0; first < kSubs; first += kLanes) {
      const size_t at = group * kSignGroup * kSubs + first;
      Integers negative[kSignGroup];
      for (size_t i = 0; i < kSignGroup; ++i) {
        negative[i] = load(tile.weights + at + i * kSubs) < 0.0f;
      }
      if constexpr (Type::kParity) make_even(tile, at, negative);
      Integers bits{};
      for (size_t i = 0; i < kSignGroup; ++i) {
        const Floats weight = load(tile.weights + at + i * kSubs);
        store(negative[i] ? -weight : weight, tile.weights + at + i * kSubs);
        bits |= negative[i] & (1 << i);
      }
      for (size_t l = 0; l < kLanes; ++l) {
        unit.signs[group * kSubs + first + l] = static_cast<uint8_t>(bits[l]);
      }
    }
  }
}

// Squared errors of all halves of one slot of kLanes sub-blocks.
template <class Type>
struct HalfErrors {
  Floats first[Type::kHalves];
  Floats second[Type::kHalves];
};

template <class Type>
EDGEMOE_LANES void pair_errors(const Tile<Type::kSubs>& tile, size_t at,
                               const Floats (&points)[Type::kValues], Floats* errors) noexcept {
  constexpr size_t kValues = Type::kValues;
  Floats first[kValues];
  Floats second[kValues];
  const auto fill = [&](size_t from, Floats(&to)[kValues]) {
    const Floats weight = load(tile.weights + from);
    const Floats importance = load(tile.importance + from);
    for (size_t v = 0; v < kValues; ++v) {
      const Floats difference = points[v] - weight;
      to[v] = importance * difference * difference;
    }
  };
  fill(at, first);
  fill(at + Type::kSubs, second);
  for (size_t b = 0; b < kValues; ++b) {
    for (size_t a = 0; a < kValues; ++a) errors[b * kValues + a] = first[a] + second[b];
  }
}

template <class Type>
EDGEMOE_LANES void half_errors(const Tile<Type::kSubs>& tile, size_t at,
                               const Floats (&points)[Type::kValues], Floats* errors) noexcept {
  if constexpr (Type::kDimensions == 4) {
    pair_errors<Type>(tile, at, points, errors);
  } else {
    constexpr size_t kPairs = Type::kValues * Type::kValues;
    Floats first[kPairs];
    Floats second[kPairs];
    pair_errors<Type>(tile, at, points, first);
    pair_errors<Type>(tile, at + 2 * Type::kSubs, points, second);
    for (size_t b = 0; b < kPairs; ++b) {
      for (size_t a = 0; a < kPairs; ++a) errors[b * kPairs + a] = first[a] + second[b];
    }
  }
}

template <class Type>
EDGEMOE_LANES void slot_errors(const Tile<Type::kSubs>& tile, size_t slot, size_t first,
                               Floats scale, HalfErrors<Type>& errors) noexcept {
  Floats points[Type::kValues];
  for (size_t v = 0; v < Type::kValues; ++v) {
    points[v] = scale * static_cast<float>(Type::values[v]);
  }
  const size_t at = slot * Type::kDimensions * Type::kSubs + first;
  half_errors<Type>(tile, at, points, errors.first);
  half_errors<Type>(tile, at + Type::kDimensions / 2 * Type::kSubs, points, errors.second);
}

// The least error of the first halves of a run.
template <class Type>
EDGEMOE_LANES Floats least_of_run(const typename Type::Search& grid, const GridRun& run,
                                  const HalfErrors<Type>& errors) noexcept {
  Floats even = errors.first[grid.first[run.begin]];
  Floats odd = errors.first[grid.first[run.begin + 1]];
  for (size_t at = run.begin + 2u; at < run.end; at += 2) {
    even = minimum(errors.first[grid.first[at]], even);
    odd = minimum(errors.first[grid.first[at + 1]], odd);
  }
  return minimum(even, odd);
}

// The least error of kLanes sub-blocks under these scales.
template <class Type>
inline Floats least_errors(const Tile<Type::kSubs>& tile, const typename Type::Search& grid,
                           size_t first, Floats scale) noexcept {
  HalfErrors<Type> errors;
  Floats total{};
  for (size_t slot = 0; slot < Type::kSlots; ++slot) {
    slot_errors<Type>(tile, slot, first, scale, errors);
    Floats least = splat(3e38f);
    for (size_t r = 0; r < grid.num_runs; ++r) {
      const GridRun& run = grid.runs[r];
      least = minimum(errors.second[run.second] + least_of_run<Type>(grid, run, errors), least);
    }
    total += least;
  }
  return total;
}

// The entries with the least error of one slot, [kLanes], and the errors.
template <class Type>
inline Floats find_slot(const Tile<Type::kSubs>& tile, const typename Type::Search& grid,
                        size_t slot, size_t first, Floats scale, uint16_t* found) noexcept {
  HalfErrors<Type> errors;
  slot_errors<Type>(tile, slot, first, scale, errors);
  Floats least = splat(3e38f);
  Floats least_first{};
  Integers which{};
  for (size_t r = 0; r < grid.num_runs; ++r) {
    const GridRun& run = grid.runs[r];
    const Floats of_run = least_of_run<Type>(grid, run, errors);
    const Floats error = errors.second[run.second] + of_run;
    const Integers less = error < least;
    least = less ? error : least;
    least_first = less ? of_run : least_first;
    which = less ? Integers{} + static_cast<int32_t>(r) : which;
  }
  for (size_t l = 0; l < kLanes; ++l) {
    size_t at = grid.runs[which[l]].begin;
    while (errors.first[grid.first[at]][l] != least_first[l]) ++at;
    found[l] = grid.number[at];
  }
  return least;
}

// The entries of all slots, at [slot * kSubs + sub-block] of `found`, and their errors.
template <class Type>
inline Floats find_entries(const Tile<Type::kSubs>& tile, const typename Type::Search& grid,
                           size_t first, Floats scale, uint16_t* found) noexcept {
  Floats total{};
  for (size_t slot = 0; slot < Type::kSlots; ++slot) {
    total += find_slot<Type>(tile, grid, slot, first, scale, found + slot * Type::kSubs + first);
  }
  return total;
}

}  // namespace
}  // namespace edgemoe
