// Scales and entries of a unit of a grid type: a scale per sub-block from a free search, d and
// 4-bit scales from those, entries last (see quantize_grid.inl.h).
#pragma once

#include "quant/generic/quantize_grid.inl.h"

namespace edgemoe {
namespace {

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
