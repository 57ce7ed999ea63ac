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
  // Scales that are tried: the weighted root mean square of a sub-block times these.
  static constexpr float kScales[] = {0.044f, 0.049f, 0.054f, 0.059f, 0.064f,
                                      0.069f, 0.075f, 0.082f, 0.090f};
};

struct Iq3XxsValues {
  static constexpr size_t kDimensions = 4;
  static constexpr size_t kValues = 8;
  static constexpr size_t kHalves = 64;
  static constexpr const int8_t (&values)[kValues] = kIq3XxsGridValues;
  static constexpr float kScales[] = {0.027f, 0.030f, 0.033f, 0.036f, 0.039f,
                                      0.042f, 0.046f, 0.050f, 0.055f};
};

struct Iq3SValues {
  static constexpr size_t kDimensions = 4;
  static constexpr size_t kValues = 8;
  static constexpr size_t kHalves = 64;
  static constexpr const int8_t (&values)[kValues] = kIq3SGridValues;
  static constexpr float kScales[] = {0.105f, 0.116f, 0.127f, 0.138f, 0.150f,
                                      0.163f, 0.178f, 0.195f, 0.215f};
};

// A type: its values, entries, the number of sub-blocks, and whether the signs of eight weights are
// seven bits and their parity.
template <class ValuesOf, size_t kEntriesOf, size_t kSubsOf, bool kParityOf>
struct GridType : ValuesOf {
  static constexpr size_t kEntries = kEntriesOf;
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
  Floats low[Type::kHalves];
  Floats high[Type::kHalves];
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
  half_errors<Type>(tile, at, points, errors.low);
  half_errors<Type>(tile, at + Type::kDimensions / 2 * Type::kSubs, points, errors.high);
}

// The least error of kLanes sub-blocks under these scales.
template <class Type>
inline Floats least_errors(const Tile<Type::kSubs>& tile, const GridEntry* entries, size_t first,
                           Floats scale) noexcept {
  HalfErrors<Type> errors;
  Floats total{};
  for (size_t slot = 0; slot < Type::kSlots; ++slot) {
    slot_errors<Type>(tile, slot, first, scale, errors);
    Floats even = splat(3e38f);
    Floats odd = even;
    for (size_t e = 0; e < Type::kEntries; e += 2) {
      even = minimum(errors.low[entries[e].low] + errors.high[entries[e].high], even);
      odd = minimum(errors.low[entries[e + 1].low] + errors.high[entries[e + 1].high], odd);
    }
    total += minimum(even, odd);
  }
  return total;
}

// The entries with those errors: [slot * kSubs + sub-block].
template <class Type>
inline void find_entries(const Tile<Type::kSubs>& tile, const GridEntry* entries, size_t first,
                         Floats scale, uint16_t* found) noexcept {
  HalfErrors<Type> errors;
  for (size_t slot = 0; slot < Type::kSlots; ++slot) {
    slot_errors<Type>(tile, slot, first, scale, errors);
    Floats least = splat(3e38f);
    Integers which{};
    for (size_t e = 0; e < Type::kEntries; ++e) {
      const Floats error = errors.low[entries[e].low] + errors.high[entries[e].high];
      const Integers less = error < least;
      least = less ? error : least;
      which = less ? Integers{} + static_cast<int32_t>(e) : which;
    }
    for (size_t l = 0; l < kLanes; ++l) {
      found[slot * Type::kSubs + first + l] = static_cast<uint16_t>(which[l]);
    }
  }
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

// The scales with the least error, of those that are tried.
template <class Type>
inline Floats wanted_scales(const Tile<Type::kSubs>& tile, const GridEntry* entries,
                            size_t first) noexcept {
  Floats importance{};
  Floats squares{};
  for (size_t e = 0; e < Tile<Type::kSubs>::kElements; ++e) {
    const Floats weight = load(tile.weights + e * Type::kSubs + first);
    const Floats one = load(tile.importance + e * Type::kSubs + first);
    importance += one;
    squares += one * weight * weight;
  }
  const Floats spread = square_root(squares / importance);
  Floats best{};
  Floats least = splat(3e38f);
  for (const float factor : Type::kScales) {
    const Floats scale = spread * factor;
    const Floats error = least_errors<Type>(tile, entries, first, scale);
    const Integers less = error < least;
    best = less ? scale : best;
    least = less ? error : least;
  }
  return best;
}

// The best scales of 4 bits under d, tried around the wanted ones, and their entries. Returns the
// error of the unit.
template <class Type>
inline float choose_scales(const Tile<Type::kSubs>& tile, const GridEntry* entries,
                           const float* wanted, float d, GridUnit<Type>& unit) noexcept {
  float errors[Type::kSubs];
  for (size_t first = 0; first < Type::kSubs; first += kLanes) {
    const Floats middle = nearest(clamp(load(wanted + first) * (0.5f / d) - 0.5f, 0.0f, 15.0f));
    Floats best{};
    Floats least = splat(3e38f);
    for (int step = -1; step <= 1; ++step) {
      const Floats whole = clamp(middle + static_cast<float>(step), 0.0f, 15.0f);
      const Floats error = least_errors<Type>(tile, entries, first, d * (2.0f * whole + 1.0f));
      const Integers less = error < least;
      best = less ? whole : best;
      least = less ? error : least;
    }
    store(least, errors + first);
    for (size_t l = 0; l < kLanes; ++l) unit.scale[first + l] = static_cast<uint8_t>(best[l]);
    find_entries<Type>(tile, entries, first, d * (2.0f * best + 1.0f), unit.entry);
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

// `unit_scale` is what the format multiplies d by.
template <class Type>
inline void fit_grid_unit(const float* weights, const float* importance, const GridEntry* entries,
                          const int8_t* grid, float unit_scale, GridUnit<Type>& best) noexcept {
  constexpr size_t kSubs = Type::kSubs;
  Magnitudes<Type> source;
  fill_tile(weights, importance, source.tile);
  split_signs<Type>(source);
  best = {};
  __builtin_memcpy(best.signs, source.signs, sizeof best.signs);
  float wanted[kSubs];
  for (size_t first = 0; first < kSubs; first += kLanes) {
    store(wanted_scales<Type>(source.tile, entries, first), wanted + first);
  }
  float most = 0.0f;
  for (const float scale : wanted) most = scale > most ? scale : most;
  const Tile<kSubs>& tile = source.tile;
  HalfScale d = tile.half_that_reaches(most / (31.0f * unit_scale), 31.0f, most / unit_scale);
  float least = 3e38f;
  GridUnit<Type> unit = best;
  for (int round = 0; round < 2 && (d.bits & 0x7FFFu) != 0; ++round) {
    const float error = choose_scales(tile, entries, wanted, d.value * unit_scale, unit);
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
