// The loops of error feedback: lanes are rows, so that sums run over columns in order.
#pragma once

#include "quant/codebooks.h"
#include "quant/generic/quantize_grid.inl.h"
#include "quant/generic/quantize_scale.inl.h"
#include "quant/generic/quantize_values.inl.h"
#include "quant/quantize_levels.h"

namespace edgemoe {
namespace {

inline constexpr size_t kFeedbackVectors = kFeedbackLanes / kLanes;

// targets[c] += delta * upper[c] for columns [first, count) and all rows.
EDGEMOE_LANES void feed(const Floats (&delta)[kFeedbackVectors], const float* upper, size_t first,
                        size_t count, float* targets) noexcept {
  for (size_t c = first; c < count; ++c) {
    const Floats factor = splat(upper[c]);
    float* target = targets + c * kFeedbackLanes;
    for (size_t v = 0; v < kFeedbackVectors; ++v) {
      store(load(target + v * kLanes) + delta[v] * factor, target + v * kLanes);
    }
  }
}

// Adds what columns of earlier units left: four of them at a time, in order.
inline void feed_from_earlier(const EarlierColumns& earlier, size_t count,
                              float* targets) noexcept {
  size_t p = 0;
  for (; p + 4 <= earlier.count; p += 4) {
    for (size_t v = 0; v < kFeedbackVectors; ++v) {
      Floats delta[4];
      for (size_t i = 0; i < 4; ++i) {
        delta[i] = load(earlier.deltas + (p + i) * kFeedbackLanes + v * kLanes);
      }
      const float* upper = earlier.upper + p * earlier.stride;
      for (size_t c = 0; c < count; ++c) {
        float* target = targets + c * kFeedbackLanes + v * kLanes;
        Floats sum = load(target);
        for (size_t i = 0; i < 4; ++i) sum += delta[i] * splat(upper[i * earlier.stride + c]);
        store(sum, target);
      }
    }
  }
  for (; p < earlier.count; ++p) {
    Floats delta[kFeedbackVectors];
    for (size_t v = 0; v < kFeedbackVectors; ++v) {
      delta[v] = load(earlier.deltas + p * kFeedbackLanes + v * kLanes);
    }
    feed(delta, earlier.upper + p * earlier.stride, 0, count, targets);
  }
}

template <class Codes>
inline void feed_back(const FeedbackUnit& unit) noexcept {
  for (size_t c = 0; c < unit.count; ++c) {
    const size_t sub = c / kSubBlockColumns * kFeedbackLanes;
    const size_t at = c * kFeedbackLanes;
    Floats delta[kFeedbackVectors];
    for (size_t v = 0; v < kFeedbackVectors; ++v) {
      const size_t lane = v * kLanes;
      const Floats scale = load(unit.scales + sub + lane);
      const Floats minimum = load(unit.minima + sub + lane);
      const Floats target = load(unit.targets + at + lane) * unit.inverse_factors[c];
      // Beyond this all codes are at their ends, and nearest() asks for less than 2^22.
      const Floats wanted = clamp((target + minimum) * inverse(scale), -1e6f, 1e6f);
      const Floats code = where(scale != 0.0f, Codes::round(wanted));
      store(code, unit.codes + at + lane);
      const Floats value = scale * code - minimum;
      delta[v] = load(unit.weights + at + lane) - value * unit.factors[c];
      store(delta[v], unit.deltas + at + lane);
    }
    feed(delta, unit.upper + c * unit.stride, c + 1, unit.count, unit.targets);
  }
}

// A type of grids whose lanes are rows: of the tile, the first eight columns are used.
template <class Type>
struct RowsOf : Type {
  static constexpr size_t kSubs = kFeedbackLanes;
};

// The wanted values of columns [first, first + count) as columns [at, at + count) of the tile.
inline void fill_columns(const FeedbackUnit& unit, size_t first, size_t count, size_t at,
                         Tile<kFeedbackLanes>& tile) noexcept {
  for (size_t i = 0; i < count; ++i) {
    const float* target = unit.targets + (first + i) * kFeedbackLanes;
    for (size_t lane = 0; lane < kFeedbackLanes; lane += kLanes) {
      const size_t to = (at + i) * kFeedbackLanes + lane;
      store(load(target + lane) * unit.inverse_factors[first + i], tile.weights + to);
      store(splat(unit.pivots[first + i]), tile.importance + to);
    }
  }
}

// The signs of columns [begin, end) of the tile, added to those that are there.
template <bool kParity>
inline void choose_signs(const Tile<kFeedbackLanes>& tile, size_t begin, size_t end,
                         uint8_t* signs) noexcept {
  for (size_t lane = 0; lane < kFeedbackLanes; lane += kLanes) {
    Integers negative[kSignGroup] = {};
    for (size_t i = begin; i < end; ++i) {
      negative[i] = load(tile.weights + i * kFeedbackLanes + lane) < 0.0f;
    }
    if constexpr (kParity) make_even(tile, lane, negative);
    for (size_t i = begin; i < end; ++i) {
      const Integers bits = negative[i] & (1 << i);
      for (size_t l = 0; l < kLanes; ++l) {
        signs[lane + l] = static_cast<uint8_t>(signs[lane + l] | bits[l]);
      }
    }
  }
}

// Chooses the entries of a slot, whose columns begin at `first` of the unit and `at` of the tile.
template <class Type>
inline void choose_entries_of(const FeedbackUnit& unit, const typename Type::Search& search,
                              const int8_t* grid, size_t first, size_t at,
                              Tile<kFeedbackLanes>& tile) noexcept {
  const uint8_t* signs = unit.signs + first / kSignGroup * kFeedbackLanes;
  uint16_t* entries = unit.entries + first / Type::kDimensions * kFeedbackLanes;
  const float* scales = unit.scales + first / kSubBlockColumns * kFeedbackLanes;
  for (size_t i = at; i < at + Type::kDimensions; ++i) {
    for (size_t l = 0; l < kFeedbackLanes; ++l) {
      float& weight = tile.weights[i * kFeedbackLanes + l];
      weight = (signs[l] >> i & 1) != 0 ? -weight : weight;
    }
  }
  for (size_t lane = 0; lane < kFeedbackLanes; lane += kLanes) {
    find_slot<Type>(tile, search, at / Type::kDimensions, lane, load(scales + lane),
                    entries + lane);
  }
  for (size_t i = 0; i < Type::kDimensions; ++i) {
    float* codes = unit.codes + (first + i) * kFeedbackLanes;
    for (size_t l = 0; l < kFeedbackLanes; ++l) {
      const auto value = static_cast<float>(grid[entries[l] * Type::kDimensions + i]);
      codes[l] = (signs[l] >> (at + i) & 1) != 0 ? -value : value;
    }
  }
}

// Groups of eight columns share signs, slots of them an entry; what a slot leaves goes to all
// columns after it.
template <class Type>
inline void feed_back_grid(const FeedbackUnit& unit, const typename Type::Search& search,
                           const int8_t* grid) noexcept {
  Tile<kFeedbackLanes> tile;
  for (size_t first = 0; first < unit.count; first += Type::kDimensions) {
    const size_t at = first % kSignGroup;
    uint8_t* signs = unit.signs + first / kSignGroup * kFeedbackLanes;
    if (at == 0) {
      for (size_t l = 0; l < kFeedbackLanes; ++l) signs[l] = 0;
      fill_columns(unit, first, kSignGroup, 0, tile);
      if constexpr (Type::kParity) choose_signs<true>(tile, 0, kSignGroup, signs);
    } else {
      fill_columns(unit, first, Type::kDimensions, at, tile);
    }
    if constexpr (!Type::kParity) choose_signs<false>(tile, at, at + Type::kDimensions, signs);
    choose_entries_of<RowsOf<Type>>(unit, search, grid, first, at, tile);
    const float* scales = unit.scales + first / kSubBlockColumns * kFeedbackLanes;
    for (size_t i = first; i < first + Type::kDimensions; ++i) {
      const size_t place = i * kFeedbackLanes;
      Floats delta[kFeedbackVectors];
      for (size_t v = 0; v < kFeedbackVectors; ++v) {
        const Floats value = load(scales + v * kLanes) * load(unit.codes + place + v * kLanes);
        delta[v] = load(unit.weights + place + v * kLanes) - value * unit.factors[i];
        store(delta[v], unit.deltas + place + v * kLanes);
      }
      feed(delta, unit.upper + i * unit.stride, first + Type::kDimensions, unit.count,
           unit.targets);
    }
  }
}

inline void feed_back_IQ2_XXS(const FeedbackUnit& unit) noexcept {
  feed_back_grid<GridType<Iq2Values, 256, 8, true>>(unit, search_grids().iq2_xxs, kGridIq2Xxs);
}

inline void feed_back_IQ2_XS(const FeedbackUnit& unit) noexcept {
  feed_back_grid<GridType<Iq2Values, 512, 16, true>>(unit, search_grids().iq2_xs, kGridIq2Xs);
}

inline void feed_back_IQ2_S(const FeedbackUnit& unit) noexcept {
  feed_back_grid<GridType<Iq2Values, 1024, 16, false>>(unit, search_grids().iq2_s, kGridIq2S);
}

inline void feed_back_IQ3_XXS(const FeedbackUnit& unit) noexcept {
  feed_back_grid<GridType<Iq3XxsValues, 256, 8, true>>(unit, search_grids().iq3_xxs, kGridIq3Xxs);
}

inline void feed_back_IQ3_S(const FeedbackUnit& unit) noexcept {
  feed_back_grid<GridType<Iq3SValues, 512, 8, false>>(unit, search_grids().iq3_s, kGridIq3S);
}

}  // namespace
}  // namespace edgemoe
