// The IQ types of 2 and 3 bits: groups of magnitudes are entries of a grid, signs are bits, and
// each sub-block has a scale of 4 bits, d * (2 * scale + 1).
//
// Under a given scale the best entry is found exactly. The squared error of an entry is the sum of
// those of its halves; there are 81 (three values, four elements) or 64 (eight values, two
// elements) of those, so that an entry costs one addition and one comparison.
#pragma once

#include "quant/codebooks.h"
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

// The entries with those errors, at [slot * kSubs + sub-block] of `found`, and the errors.
template <class Type>
inline Floats find_entries(const Tile<Type::kSubs>& tile, const typename Type::Search& grid,
                           size_t first, Floats scale, uint16_t* found) noexcept {
  HalfErrors<Type> errors;
  Floats total{};
  for (size_t slot = 0; slot < Type::kSlots; ++slot) {
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
    total += least;
    for (size_t l = 0; l < kLanes; ++l) {
      size_t at = grid.runs[which[l]].begin;
      while (errors.first[grid.first[at]][l] != least_first[l]) ++at;
      found[slot * Type::kSubs + first + l] = grid.number[at];
    }
  }
  return total;
}

// What a unit is stored as.
template <class Type>
struct GridUnit {
  HalfScale d;
  uint8_t scale[Type::kSubs];                         // from 0 to 15, worth 2 * scale + 1
  uint16_t entry[kUnitElements / Type::kDimensions];  // [slot * kSubs + sub-block]
  uint8_t signs[kUnitElements / kSignGroup];          // [group * kSubs + sub-block]
};

inline Floats square_root(Floats value) noexcept {
  for (size_t l = 0; l < kLanes; ++l) value[l] = __builtin_sqrtf(value[l]);
  return value;
}

// The scales between which the best one of each sub-block is looked for: by the root mean square of
// the weights, and up to where the largest weight is within the grid.
template <class Type>
EDGEMOE_LANES void scale_limits(const Tile<Type::kSubs>& tile, size_t first, Floats& low,
                                Floats& high) noexcept {
  Floats importance{};
  Floats squares{};
  Floats extreme{};
  for (size_t e = 0; e < Tile<Type::kSubs>::kElements; ++e) {
    const Floats weight = load(tile.weights + e * Type::kSubs + first);
    const Floats one = load(tile.importance + e * Type::kSubs + first);
    importance += one;
    squares += one * weight * weight;
    extreme = maximum(weight, extreme);
  }
  const Floats middle = square_root(squares / importance) * Type::kScale;
  low = 0.65f * middle;
  high = maximum(1.5f * middle, extreme * (1.05f / Type::values[Type::kValues - 1]));
}

// A scale and what it explains of the weighted squares if every magnitude may be any value.
struct FreeFit {
  Floats scale;
  Floats gain;
};

template <class Type>
EDGEMOE_LANES FreeFit free_fit(const Tile<Type::kSubs>& tile, size_t first, Floats scale) noexcept {
  const Floats inverse_scale = inverse(scale);
  Floats product{};
  Floats square{};
  for (size_t e = 0; e < Tile<Type::kSubs>::kElements; ++e) {
    const size_t at = e * Type::kSubs + first;
    const Floats weight = load(tile.weights + at);
    const Floats value = Type::nearest_value(weight * inverse_scale);
    const Floats weighted = load(tile.importance + at) * value;
    product += weighted * weight;
    square += weighted * value;
  }
  const Floats better = maximum(product, Floats{}) / square;
  return {better, better * product};
}

// The scales with the least error, of the few that are best if the grid is left out of account.
template <class Type>
inline Floats wanted_scales(const Tile<Type::kSubs>& tile, const typename Type::Search& search,
                            size_t first) noexcept {
  constexpr size_t kFree = 10;
  constexpr size_t kKept = 3;
  Floats low;
  Floats high;
  scale_limits<Type>(tile, first, low, high);
  FreeFit kept[kKept];  // best first
  for (FreeFit& one : kept) one = {low, splat(-1.0f)};
  for (size_t k = 0; k < kFree; ++k) {
    const Floats at = low + (high - low) * (static_cast<float>(k) / (kFree - 1));
    FreeFit next = free_fit<Type>(tile, first, at);
    for (FreeFit& one : kept) {
      // What differs by less than the steps of stored scales would be tried in vain.
      const Integers same = magnitude(next.scale - one.scale) < 0.01f * one.scale;
      next.gain = same ? splat(-1.0f) : next.gain;
      const Integers better = next.gain > one.gain;
      const FreeFit old = one;
      one = {better ? next.scale : old.scale, better ? next.gain : old.gain};
      next = {better ? old.scale : next.scale, better ? old.gain : next.gain};
    }
  }
  Floats best{};
  Floats least = splat(3e38f);
  for (const FreeFit& one : kept) {
    const Floats error = least_errors<Type>(tile, search, first, one.scale);
    const Integers less = error < least;
    best = less ? one.scale : best;
    least = less ? error : least;
  }
  return best;
}

// The best scales of 4 bits under d, near the wanted ones.
template <class Type>
inline void choose_scales(const Tile<Type::kSubs>& tile, const typename Type::Search& search,
                          const float* wanted, float d, GridUnit<Type>& unit) noexcept {
  for (size_t first = 0; first < Type::kSubs; first += kLanes) {
    const Floats middle = nearest(clamp(load(wanted + first) * (0.5f / d) - 0.5f, 0.0f, 15.0f));
    Floats best{};
    Floats least = splat(3e38f);
    for (int step = -1; step <= 1; ++step) {
      const Floats whole = clamp(middle + static_cast<float>(step), 0.0f, 15.0f);
      const Floats error = least_errors<Type>(tile, search, first, d * (2.0f * whole + 1.0f));
      const Integers less = error < least;
      best = less ? whole : best;
      least = less ? error : least;
    }
    for (size_t l = 0; l < kLanes; ++l) unit.scale[first + l] = static_cast<uint8_t>(best[l]);
  }
}

// The entries for d and the scales of the unit. Returns the error.
template <class Type>
inline float choose_entries(const Tile<Type::kSubs>& tile, const typename Type::Search& search,
                            float d, GridUnit<Type>& unit) noexcept {
  float errors[Type::kSubs];
  for (size_t first = 0; first < Type::kSubs; first += kLanes) {
    Floats scale;
    for (size_t l = 0; l < kLanes; ++l)
      scale[l] = static_cast<float>(2 * unit.scale[first + l] + 1);
    store(find_entries<Type>(tile, search, first, d * scale, unit.entry), errors + first);
  }
  float total = 0.0f;
  for (const float error : errors) total += error;
  return total;
}

// The best d for given scales and entries.
template <class Type>
inline float better_d(const Tile<Type::kSubs>& tile, const int8_t* grid,
                      const GridUnit<Type>& unit) noexcept {
  float products[Type::kSubs] = {};
  float squares[Type::kSubs] = {};
  for (size_t slot = 0; slot < Type::kSlots; ++slot) {
    for (size_t s = 0; s < Type::kSubs; ++s) {
      const int8_t* values = grid + unit.entry[slot * Type::kSubs + s] * Type::kDimensions;
      for (size_t i = 0; i < Type::kDimensions; ++i) {
        const size_t at = (slot * Type::kDimensions + i) * Type::kSubs + s;
        const float weighted = tile.importance[at] * static_cast<float>(values[i]);
        products[s] += weighted * tile.weights[at];
        squares[s] += weighted * static_cast<float>(values[i]);
      }
    }
  }
  float product = 0.0f;
  float square = 0.0f;
  for (size_t s = 0; s < Type::kSubs; ++s) {
    const auto scale = static_cast<float>(2 * unit.scale[s] + 1);
    product += scale * products[s];
    square += scale * scale * squares[s];
  }
  return square > 0.0f ? product / square : 0.0f;
}

// Tiny weights may be nearer to 0 than to anything under the smallest d.
template <size_t kSubs>
inline float error_of_zeros(const Tile<kSubs>& tile) noexcept {
  float lanes[kSubs] = {};
  for (size_t i = 0; i < kUnitElements; ++i) {
    lanes[i % kSubs] += tile.importance[i] * tile.weights[i] * tile.weights[i];
  }
  float total = 0.0f;
  for (const float lane : lanes) total += lane;
  return total;
}

// `unit_scale` is what the format multiplies d by.
template <class Type>
inline void fit_grid_unit(const float* weights, const float* importance,
                          const typename Type::Search& search, const int8_t* grid, float unit_scale,
                          GridUnit<Type>& best) noexcept {
  constexpr size_t kSubs = Type::kSubs;
  Magnitudes<Type> source;
  fill_tile(weights, importance, source.tile);
  split_signs<Type>(source);
  best = {};
  __builtin_memcpy(best.signs, source.signs, sizeof best.signs);
  float wanted[kSubs];
  for (size_t first = 0; first < kSubs; first += kLanes) {
    store(wanted_scales<Type>(source.tile, search, first), wanted + first);
  }
  float most = 0.0f;
  for (const float scale : wanted) most = scale > most ? scale : most;
  const Tile<kSubs>& tile = source.tile;
  HalfScale d = tile.half_that_reaches(most / (31.0f * unit_scale), 31.0f, most / unit_scale);
  if (d.bits == 0) return;
  float least = error_of_zeros(tile);
  GridUnit<Type> unit = best;
  choose_scales(tile, search, wanted, d.value * unit_scale, unit);
  for (int round = 0; round < 2; ++round) {
    const float error = choose_entries(tile, search, d.value * unit_scale, unit);
    if (error < least) {
      least = error;
      best = unit;
      best.d = d;
    }
    const HalfScale better = tile.half(better_d(tile, grid, unit) / unit_scale);
    if (better.bits == d.bits || !(better.value > 0.0f)) break;
    d = better;
  }
}

}  // namespace
}  // namespace edgemoe
