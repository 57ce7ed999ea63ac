// One token on the dotprod level (see generic/matmul_one_token.inl.h): sdot multiplies 8 columns of
// 2 rows with the same 8 activations, and leaves two 32-bit parts a row, which are joined once the
// span is complete.
#pragma once

#include <cstddef>

namespace edgemoe::kernels {
namespace {
inline constexpr bool kSplitColumns = false;
}
}  // namespace edgemoe::kernels

#include "kernels/arm/vector_neon.inl.h"  // needs the above
#include "kernels/generic/fold.inl.h"

namespace edgemoe::kernels {
namespace {

// One 32-bit lane a row.
struct RowSums {
  int32x4_t low;   // rows 0..3
  int32x4_t high;  // rows 4..7
};

struct RowTotals {
  float32x4_t low;
  float32x4_t high;
};

// Rows 2i and 2i + 1 in each, two parts a row.
struct RowParts {
  int32x4_t pair[kUnitVectors];
};

struct alignas(64) FoldTile {
  RowParts parts[kMaxSpans];  // of spans that are not complete
  RowSums sums;
  FoldActivations x;
  float d[kTileRows];
  float dmin[kTileRows];
  ScaleBytes bytes;
};

inline RowTotals zero_totals() noexcept {
  return {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
}

inline void store_totals(const RowTotals& totals, float* to) noexcept {
  vst1q_f32(to, totals.low);
  vst1q_f32(to + 4, totals.high);
}

inline void begin_fold(const FoldActivations& x, FoldTile& tile) noexcept {
  tile.sums = {vdupq_n_s32(0), vdupq_n_s32(0)};
  tile.x = x;
}

template <class Format>
int32_t span_sum(const int16_t* sums, size_t span) noexcept {
  return Format::kSpan == 16 ? sums[span] : sums[2 * span] + sums[2 * span + 1];
}

// What the sums of a span begin with: they lack what the bias of the codes adds.
template <class Format>
int32x4_t first_parts(const FoldTile& tile, size_t span) noexcept {
  if constexpr (Format::kBias == 0) return vdupq_n_s32(0);
  const int32_t bias = -Format::kBias * span_sum<Format>(tile.x.sums, span);
  return vreinterpretq_s32_u64(vdupq_n_u64(static_cast<uint32_t>(bias)));
}

template <class Format>
void finish_span(size_t span, FoldTile& tile) noexcept {
  const RowParts& parts = tile.parts[span];
  const int32x4_t low = vpaddq_s32(parts.pair[0], parts.pair[1]);
  const int32x4_t high = vpaddq_s32(parts.pair[2], parts.pair[3]);
  if constexpr (!Format::kScaled) {  // the only span
    tile.sums = {low, high};
  } else {
    const int16x8_t scale = vmovl_s8(vld1_s8(tile.bytes.scale[0] + span * kRowGroup));
    tile.sums.low = vmlaq_s32(tile.sums.low, low, vmovl_s16(vget_low_s16(scale)));
    tile.sums.high = vmlaq_s32(tile.sums.high, high, vmovl_high_s16(scale));
  }
}

template <class Format>
[[gnu::always_inline]] inline void store_codes(const CodeUnit& unit, size_t index,
                                               FoldTile& tile) noexcept {
  constexpr size_t kUnitsOfSpan = Format::kSpan / kUnitColumns;
  const size_t span = index / kUnitsOfSpan;
  RowParts& parts = tile.parts[span];
  if (index % kUnitsOfSpan == 0) {
    const int32x4_t first = first_parts<Format>(tile, span);
    for (int32x4_t& pair : parts.pair) pair = first;
  }
  const int8_t* values = tile.x.codes + index * kUnitColumns;
  const int8x8_t x = vld1_s8(values);
  const int8x16_t both = vcombine_s8(x, x);
#pragma GCC unroll 4
  for (size_t i = 0; i < kUnitVectors; ++i) {
    parts.pair[i] = vdotq_s32(parts.pair[i], vreinterpretq_s8_u8(unit.part[i]), both);
  }
  if (index % kUnitsOfSpan == kUnitsOfSpan - 1) finish_span<Format>(span, tile);
}

// Scales were met span by span.
template <class Format>
void widen_scales(size_t, FoldTile&) noexcept {}

// sum over spans of min * (sum of the activations), which fits 16 bits.
template <class Format>
RowSums minimum_sums(const FoldTile& tile, size_t columns) noexcept {
  RowSums total{vdupq_n_s32(0), vdupq_n_s32(0)};
  if constexpr (Format::kMinimum == Minimum::kPlain) {
    const int32x4_t sum = vdupq_n_s32(span_sum<Format>(tile.x.sums, 0));
    return {sum, sum};
  }
#pragma GCC unroll 16
  for (size_t span = 0; span < columns / Format::kSpan; ++span) {
    const int16x8_t min = vmovl_s8(vld1_s8(tile.bytes.min[0] + span * kRowGroup));
    const auto sum = static_cast<int16_t>(span_sum<Format>(tile.x.sums, span));
    total.low = vmlal_n_s16(total.low, vget_low_s16(min), sum);
    total.high = vmlal_high_n_s16(total.high, min, sum);
  }
  return total;
}

template <class Format>
RowTotals finish_fold(const FoldTile& tile, size_t columns, const FoldActivations& x,
                      RowTotals totals) noexcept {
  const float32x4_t low = vmulq_n_f32(vld1q_f32(tile.d), x.scale);
  const float32x4_t high = vmulq_n_f32(vld1q_f32(tile.d + 4), x.scale);
  totals.low = vfmaq_f32(totals.low, low, vcvtq_f32_s32(tile.sums.low));
  totals.high = vfmaq_f32(totals.high, high, vcvtq_f32_s32(tile.sums.high));
  if constexpr (Format::kMinimum != Minimum::kNone) {
    const RowSums minima = minimum_sums<Format>(tile, columns);
    const float32x4_t low_min = vmulq_n_f32(vld1q_f32(tile.dmin), x.scale);
    const float32x4_t high_min = vmulq_n_f32(vld1q_f32(tile.dmin + 4), x.scale);
    totals.low = vfmsq_f32(totals.low, low_min, vcvtq_f32_s32(minima.low));
    totals.high = vfmsq_f32(totals.high, high_min, vcvtq_f32_s32(minima.high));
  }
  return totals;
}

}  // namespace
}  // namespace edgemoe::kernels
