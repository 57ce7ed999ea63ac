// Sixteen lanes in plain C++ (see lanes.inl.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kLanes = 16;
inline constexpr size_t kFloatTileRows = 1;
inline constexpr size_t kFloatTileTokens = 1;

struct Lanes {
  float lane[kLanes];
};

inline Lanes splat(float value) noexcept {
  Lanes out;
  for (float& lane : out.lane) lane = value;
  return out;
}
inline Lanes zero_lanes() noexcept {
  return splat(0.0f);
}

inline Lanes load_f32(const void* from) noexcept {
  Lanes out;
  __builtin_memcpy(out.lane, from, sizeof(out.lane));
  return out;
}

inline Lanes load_f16(const void* from) noexcept {
  uint16_t bits[kLanes];
  __builtin_memcpy(bits, from, sizeof(bits));
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) out.lane[l] = half_to_float(bits[l]);
  return out;
}

inline Lanes load_bf16(const void* from) noexcept {
  uint16_t bits[kLanes];
  __builtin_memcpy(bits, from, sizeof(bits));
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) out.lane[l] = bfloat16_to_float(bits[l]);
  return out;
}

inline Lanes load_i8(const void* from) noexcept {
  int8_t codes[kLanes];
  __builtin_memcpy(codes, from, sizeof(codes));
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) out.lane[l] = static_cast<float>(codes[l]);
  return out;
}

inline void store(const Lanes& lanes, float* to) noexcept {
  __builtin_memcpy(to, lanes.lane, sizeof(lanes.lane));
}

inline Lanes add(const Lanes& a, const Lanes& b) noexcept {
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) out.lane[l] = a.lane[l] + b.lane[l];
  return out;
}

inline Lanes multiply(const Lanes& a, const Lanes& b) noexcept {
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) out.lane[l] = a.lane[l] * b.lane[l];
  return out;
}

inline Lanes fused_multiply_add(const Lanes& a, const Lanes& b, const Lanes& c) noexcept {
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) {
    out.lane[l] = __builtin_fmaf(a.lane[l], b.lane[l], c.lane[l]);
  }
  return out;
}

inline float sum(Lanes lanes) noexcept {
  for (size_t distance = kLanes / 2; distance > 0; distance /= 2) {
    for (size_t l = 0; l < distance; ++l) lanes.lane[l] += lanes.lane[l + distance];
  }
  return lanes.lane[0];
}

inline void store_sums(const Lanes (&four)[4], float* to) noexcept {
  for (size_t i = 0; i < 4; ++i) to[i] = sum(four[i]);
}

inline float larger(float a, float b) noexcept {
  return a > b ? a : b;
}

inline Lanes maximum(const Lanes& a, const Lanes& b) noexcept {
  Lanes out;
  for (size_t l = 0; l < kLanes; ++l) out.lane[l] = larger(a.lane[l], b.lane[l]);
  return out;
}

inline float largest(Lanes lanes) noexcept {
  for (size_t distance = kLanes / 2; distance > 0; distance /= 2) {
    for (size_t l = 0; l < distance; ++l) {
      lanes.lane[l] = larger(lanes.lane[l], lanes.lane[l + distance]);
    }
  }
  return lanes.lane[0];
}

inline float float_from_half(uint16_t half) noexcept {
  return half_to_float(half);
}
inline uint16_t half_from_float(float value) noexcept {
  return float_to_half(value);
}

}  // namespace
}  // namespace edgemoe::kernels
