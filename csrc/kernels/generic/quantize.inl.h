// Rounding of activations (activations.h says how) and of rows of the KV cache.
#pragma once

#include "kernels/generic/elements.inl.h"
#include "kernels/generic/exponential.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline constexpr float kMaxCode = 127.0f;
// Blocks below count as zero: 127 / amax would overflow.
inline constexpr float kSmallestBlock = 0x1p-120f;

// NaN counts as 0.
template <size_t kCount>
float largest_magnitude(const float* x) noexcept {
  const Lanes minus_one = splat(-1.0f);
  Lanes best = zero_lanes();
  for (size_t i = 0; i < kCount; i += kLanes) {
    const Lanes values = load_f32(x + i);
    best = maximum(values, best);
    best = maximum(multiply(values, minus_one), best);
  }
  return largest(best);
}

// round_half_even(x * inverse) within [-127, 127]; NaN gives -127.
inline float rounded(float x, float inverse) noexcept {
  float scaled = x * inverse;
  scaled = scaled > -kMaxCode ? scaled : -kMaxCode;
  scaled = scaled < kMaxCode ? scaled : kMaxCode;
  return (scaled + kRoundingShift) - kRoundingShift;
}

inline int8_t code_of(float whole) noexcept {
  return static_cast<int8_t>(static_cast<int32_t>(whole));
}

template <size_t kBlock>
void quantize_rows(const float* values, size_t columns, int8_t* codes, float* scales,
                   int16_t* sums) noexcept {
  for (size_t first = 0; first < columns; first += kBlock) {
    const float* x = values + first;
    const float magnitude = largest_magnitude<kBlock>(x);
    const bool zero = magnitude < kSmallestBlock;
    const float inverse = zero ? 0.0f : kMaxCode / magnitude;
    *scales++ = zero ? 0.0f : magnitude / kMaxCode;
    float whole[kBlock];
    for (size_t i = 0; i < kBlock; ++i) whole[i] = rounded(x[i], inverse);
    int8_t block[kBlock];
    for (size_t i = 0; i < kBlock; ++i) block[i] = code_of(whole[i]);
    __builtin_memcpy(codes + first, block, kBlock);
    static_assert(kSumBlock == kLanes);
    for (size_t part = 0; part < kBlock; part += kSumBlock) {  // exact: whole numbers
      *sums++ = static_cast<int16_t>(sum(load_f32(whole + part)));
    }
  }
}

// The stored scale is a half, so codes are taken relative to what was stored.
inline void store_q8_block(const float* x, std::byte* out) noexcept {
  constexpr float kLargestHalf = 65504.0f;
  const float exact = largest_magnitude<kQ8Block>(x) / kMaxCode;
  const uint16_t scale = half_from_float(exact < kLargestHalf ? exact : kLargestHalf);
  const float stored = float_from_half(scale);
  const float inverse = stored > 0.0f ? 1.0f / stored : 0.0f;
  int8_t block[kQ8Block];
  for (size_t i = 0; i < kQ8Block; ++i) block[i] = code_of(rounded(x[i], inverse));
  __builtin_memcpy(out, &scale, sizeof(scale));
  __builtin_memcpy(out + sizeof(scale), block, kQ8Block);
}

inline void store_kv(KvType type, const float* x, size_t n, std::byte* out) noexcept {
  switch (type) {
    case KvType::kF32:
      __builtin_memcpy(out, x, n * sizeof(float));
      return;
    case KvType::kF16:
      for (size_t i = 0; i < n; ++i) {
        const uint16_t half = half_from_float(x[i]);
        __builtin_memcpy(out + i * sizeof(half), &half, sizeof(half));
      }
      return;
    case KvType::kQ8_0:
      for (size_t i = 0; i < n; i += kQ8Block) {
        store_q8_block(x + i, out + i / kQ8Block * kQ8BlockBytes);
      }
      return;
  }
}

}  // namespace
}  // namespace edgemoe::kernels
