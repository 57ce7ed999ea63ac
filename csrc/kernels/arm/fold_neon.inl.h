// What the ARM levels share: a tile of 8 rows, and what surrounds its integer products: scales,
// minima and the sums of floats, one 32-bit lane a row. Signed codes need no bias here, and those
// of unsigned ones are valid signed bytes.
#pragma once

#include "kernels/arm/vector_neon.inl.h"
#include "kernels/generic/fold.inl.h"

namespace edgemoe::kernels {
namespace {

struct alignas(64) FoldTile {
  uint8_t code[kMaxFold / kUnitColumns][kUnitVectors][16];  // with the format's bias
  int32_t scale[kMaxSpans][kTileRows];                      // one for each kSpan columns
  int32_t min[kMaxSpans][kTileRows];                        // read when minima are scaled
  float d[kTileRows];
  float dmin[kTileRows];
  ScaleBytes bytes;
};

template <class Format>
void store_codes(const CodeUnit& unit, size_t index, FoldTile& tile) noexcept {
#pragma GCC unroll 4
  for (size_t i = 0; i < kUnitVectors; ++i) vst1q_u8(tile.code[index][i], unit.part[i]);
}

inline int8x16_t load_codes(const FoldTile& tile, size_t unit, size_t part) noexcept {
  return vreinterpretq_s8_u8(vld1q_u8(tile.code[unit][part]));
}

// One 32-bit lane a row.
struct RowSums {
  int32x4_t low;   // rows 0..3
  int32x4_t high;  // rows 4..7
};

inline RowSums load_rows(const int32_t* rows) noexcept {
  return {vld1q_s32(rows), vld1q_s32(rows + 4)};
}

inline void store_widened(const int8_t* bytes, int32_t* to) noexcept {
  const int16x8_t rows = vmovl_s8(vld1_s8(bytes));
  vst1q_s32(to, vmovl_s16(vget_low_s16(rows)));
  vst1q_s32(to + 4, vmovl_s16(vget_high_s16(rows)));
}

template <class Format>
void widen_scales(size_t columns, FoldTile& tile) noexcept {
  for (size_t span = 0; span < columns / Format::kSpan; ++span) {
    const size_t first = span * kRowGroup;
    if constexpr (Format::kScaled) store_widened(tile.bytes.scale[0] + first, tile.scale[span]);
    if constexpr (Format::kMinimum == Minimum::kScaled) {
      store_widened(tile.bytes.min[0] + first, tile.min[span]);
    }
  }
}

template <class Format>
int32_t span_sum(const int16_t* x_sums, size_t span) noexcept {
  return Format::kSpan == 16 ? x_sums[span] : x_sums[2 * span] + x_sums[2 * span + 1];
}

// sum over spans of factor * (sum of the activations), one factor a row and span.
template <class Format>
RowSums weighted_sums(const int32_t (*factors)[kTileRows], size_t columns,
                      const int16_t* x_sums) noexcept {
  RowSums total{vdupq_n_s32(0), vdupq_n_s32(0)};
  for (size_t span = 0; span < columns / Format::kSpan; ++span) {
    const RowSums factor = load_rows(factors[span]);
    const int32_t sum = span_sum<Format>(x_sums, span);
    total.low = vmlaq_n_s32(total.low, factor.low, sum);
    total.high = vmlaq_n_s32(total.high, factor.high, sum);
  }
  return total;
}

template <class Format>
RowSums without_bias(const FoldTile& tile, size_t columns, const int16_t* x_sums,
                     const RowSums& sum) noexcept {
  if constexpr (Format::kBias == 0) {
    return sum;
  } else if constexpr (Format::kScaled) {
    const RowSums offset = weighted_sums<Format>(tile.scale, columns, x_sums);
    return {vmlsq_n_s32(sum.low, offset.low, Format::kBias),
            vmlsq_n_s32(sum.high, offset.high, Format::kBias)};
  } else {  // one span, every scale 1
    const int32x4_t offset = vdupq_n_s32(Format::kBias * span_sum<Format>(x_sums, 0));
    return {vsubq_s32(sum.low, offset), vsubq_s32(sum.high, offset)};
  }
}

// sum over spans of min * (sum of the activations).
template <class Format>
RowSums minimum_sums(const FoldTile& tile, size_t columns, const int16_t* x_sums) noexcept {
  if constexpr (Format::kMinimum == Minimum::kScaled) {
    return weighted_sums<Format>(tile.min, columns, x_sums);
  } else {
    const int32x4_t sum = vdupq_n_s32(span_sum<Format>(x_sums, 0));
    return {sum, sum};
  }
}

// totals += the fold, whose integer sums are given.
template <class Format>
void add_fold(const FoldTile& tile, size_t columns, const FoldActivations& x, const RowSums& sums,
              float* totals) noexcept {
  const RowSums products = without_bias<Format>(tile, columns, x.sums, sums);
  float32x4_t low = vld1q_f32(totals);
  float32x4_t high = vld1q_f32(totals + 4);
  low = vfmaq_f32(low, vmulq_n_f32(vld1q_f32(tile.d), x.scale), vcvtq_f32_s32(products.low));
  high = vfmaq_f32(high, vmulq_n_f32(vld1q_f32(tile.d + 4), x.scale), vcvtq_f32_s32(products.high));
  if constexpr (Format::kMinimum != Minimum::kNone) {
    const RowSums minima = minimum_sums<Format>(tile, columns, x.sums);
    low = vfmsq_f32(low, vmulq_n_f32(vld1q_f32(tile.dmin), x.scale), vcvtq_f32_s32(minima.low));
    high =
        vfmsq_f32(high, vmulq_n_f32(vld1q_f32(tile.dmin + 4), x.scale), vcvtq_f32_s32(minima.high));
  }
  vst1q_f32(totals, low);
  vst1q_f32(totals + 4, high);
}

}  // namespace
}  // namespace edgemoe::kernels
