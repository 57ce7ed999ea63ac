// The quantisers of one instruction-set level, and who fills in what.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_type.h"

namespace edgemoe {

// What a quantiser gets at a time: eight blocks of 32 or one of 256.
inline constexpr size_t kUnitElements = 256;

// Writes the blocks of one unit. weights, importance: [kUnitElements]; importance is positive.
using QuantizeUnitFn = void (*)(const float* weights, const float* importance,
                                std::byte* out) noexcept;

// Rows and columns of the loops of error feedback (error_feedback.h).
inline constexpr size_t kFeedbackLanes = 16;
inline constexpr size_t kSubBlockColumns = 16;

// Columns before a unit. Arrays are [columns][kFeedbackLanes].
struct EarlierColumns {
  const float* deltas;
  const float* upper;  // of the factor, at [0][first column of the unit]
  size_t stride;
  size_t count;
};

// A unit whose codes are chosen. Arrays are [columns][kFeedbackLanes] where nothing else is said.
struct FeedbackUnit {
  size_t count;        // columns, at most kUnitElements
  const float* upper;  // of the factor, at [first][first]
  size_t stride;
  const float* factors;          // [columns]
  const float* inverse_factors;  // [columns]
  const float* scales;           // [sub-blocks][kFeedbackLanes]
  const float* minima;           // [sub-blocks][kFeedbackLanes]
  const float* weights;          // times their factors
  float* targets;                // weights and what earlier columns left, times the factors
  float* deltas;                 // result: errors times the factors
  const float* pivots;  // [columns]: how much a squared target's error counts, factor included
  float* codes;         // result
  uint16_t* entries;    // result for types of grids: [groups of 4 or 8 columns][kFeedbackLanes]
  uint8_t* signs;       // the same, [groups of 8 columns][kFeedbackLanes]
};

using FeedEarlierFn = void (*)(const EarlierColumns& earlier, size_t count,
                               float* targets) noexcept;
using FeedBackFn = void (*)(const FeedbackUnit& unit) noexcept;

struct QuantizerTable {
  QuantizeUnitFn quantize[kNumQuantTypes] = {};  // null: the type has no quantiser
  FeedBackFn feed_back[kNumQuantTypes] = {};     // null: codes are not chosen one by one
  FeedEarlierFn feed_from_earlier = nullptr;
};

// Of the highest level that this CPU has.
const QuantizerTable& quantizers() noexcept;

void fill_quantizers_baseline(QuantizerTable& table) noexcept;
#if defined(__x86_64__)
void fill_quantizers_avx2(QuantizerTable& table) noexcept;
#endif

}  // namespace edgemoe
