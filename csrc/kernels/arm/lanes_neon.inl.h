// Sixteen lanes in four NEON registers (see lanes.inl.h).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kLanes = 16;
inline constexpr size_t kFloatTileRows = 2;
inline constexpr size_t kFloatTileTokens = 2;
inline constexpr size_t kQuarters = 4;

struct Lanes {
  float32x4_t quarter[kQuarters];  // lanes 4q .. 4q + 3
};

template <class Function>
Lanes quarters(Function function) noexcept {
  Lanes out;
#pragma GCC unroll 4
  for (size_t q = 0; q < kQuarters; ++q) out.quarter[q] = function(q);
  return out;
}

inline Lanes splat(float value) noexcept {
  return quarters([value](size_t) noexcept { return vdupq_n_f32(value); });
}
inline Lanes zero_lanes() noexcept {
  return splat(0.0f);
}

inline uint8x16_t load_16_bytes(const void* from) noexcept {
  return vld1q_u8(static_cast<const uint8_t*>(from));
}
inline uint8x8_t load_8_bytes(const void* from) noexcept {
  return vld1_u8(static_cast<const uint8_t*>(from));
}

inline Lanes load_f32(const void* from) noexcept {
  const auto* bytes = static_cast<const uint8_t*>(from);
  return quarters(
      [bytes](size_t q) noexcept { return vreinterpretq_f32_u8(load_16_bytes(bytes + 16 * q)); });
}
inline Lanes load_f16(const void* from) noexcept {
  const auto* bytes = static_cast<const uint8_t*>(from);
  return quarters([bytes](size_t q) noexcept {
    return vcvt_f32_f16(vreinterpret_f16_u8(load_8_bytes(bytes + 8 * q)));
  });
}
inline Lanes load_bf16(const void* from) noexcept {
  const auto* bytes = static_cast<const uint8_t*>(from);
  return quarters([bytes](size_t q) noexcept {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(load_8_bytes(bytes + 8 * q)), 16));
  });
}
inline Lanes load_i8(const void* from) noexcept {
  const int8x16_t codes = vreinterpretq_s8_u8(load_16_bytes(from));
  const int16x8_t low = vmovl_s8(vget_low_s8(codes));
  const int16x8_t high = vmovl_s8(vget_high_s8(codes));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
           vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}

inline void store(const Lanes& lanes, float* to) noexcept {
  for (size_t q = 0; q < kQuarters; ++q) vst1q_f32(to + 4 * q, lanes.quarter[q]);
}

inline Lanes add(const Lanes& a, const Lanes& b) noexcept {
  return quarters([&](size_t q) noexcept { return vaddq_f32(a.quarter[q], b.quarter[q]); });
}
inline Lanes multiply(const Lanes& a, const Lanes& b) noexcept {
  return quarters([&](size_t q) noexcept { return vmulq_f32(a.quarter[q], b.quarter[q]); });
}
inline Lanes fused_multiply_add(const Lanes& a, const Lanes& b, const Lanes& c) noexcept {
  return quarters(
      [&](size_t q) noexcept { return vfmaq_f32(c.quarter[q], a.quarter[q], b.quarter[q]); });
}

// The maximum instruction keeps NaNs; this is a > b ? a : b.
inline float32x4_t larger(float32x4_t a, float32x4_t b) noexcept {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
inline Lanes maximum(const Lanes& a, const Lanes& b) noexcept {
  return quarters([&](size_t q) noexcept { return larger(a.quarter[q], b.quarter[q]); });
}

inline float sum(const Lanes& lanes) noexcept {
  const float32x4_t low = vaddq_f32(lanes.quarter[0], lanes.quarter[2]);
  const float32x4_t high = vaddq_f32(lanes.quarter[1], lanes.quarter[3]);
  const float32x4_t four = vaddq_f32(low, high);
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

// Four sums take fewer additions together than one by one.
inline void store_sums(const Lanes (&four)[4], float* to) noexcept {
  float32x2_t two[4];
  for (size_t i = 0; i < 4; ++i) {
    const float32x4_t quarter = vaddq_f32(vaddq_f32(four[i].quarter[0], four[i].quarter[2]),
                                          vaddq_f32(four[i].quarter[1], four[i].quarter[3]));
    two[i] = vadd_f32(vget_low_f32(quarter), vget_high_f32(quarter));
  }
  vst1_f32(to, vpadd_f32(two[0], two[1]));
  vst1_f32(to + 2, vpadd_f32(two[2], two[3]));
}

inline float largest(const Lanes& lanes) noexcept {
  const float32x4_t four = larger(larger(lanes.quarter[0], lanes.quarter[2]),
                                  larger(lanes.quarter[1], lanes.quarter[3]));
  const float32x4_t two = larger(four, vextq_f32(four, four, 2));
  return vgetq_lane_f32(larger(two, vextq_f32(two, two, 1)), 0);
}

inline float float_from_half(uint16_t half) noexcept {
  const uint16x4_t bits = vdup_n_u16(half);
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(bits)), 0);
}
inline uint16_t half_from_float(float value) noexcept {
  return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(value))), 0);
}

}  // namespace
}  // namespace edgemoe::kernels
