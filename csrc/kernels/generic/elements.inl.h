// How rows of 16 lanes are read from memory, one struct per element type:
//   load(row, i)            elements i .. i+15 as float
//   load_partial(row, i, n) elements i .. i+n-1, the other lanes 0; reads nothing past them
#pragma once

#include "kernels/generic/lanes.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

// Elements of kBytes bytes each, one after another; zero bits mean 0.
template <size_t kBytes, Lanes (*kLoad)(const void*) noexcept>
struct PlainElement {
  static Lanes load(const std::byte* row, size_t i) noexcept { return kLoad(row + i * kBytes); }
  static Lanes load_partial(const std::byte* row, size_t i, size_t count) noexcept {
    alignas(64) unsigned char padded[kLanes * kBytes] = {};
    __builtin_memcpy(padded, row + i * kBytes, count * kBytes);
    return kLoad(padded);
  }
};
using F32Element = PlainElement<4, load_f32>;
using F16Element = PlainElement<2, load_f16>;
using Bf16Element = PlainElement<2, load_bf16>;

// Blocks of 32 as in GGUF: binary16 scale, 32 codes.
inline constexpr size_t kQ8Block = 32;
inline constexpr size_t kQ8BlockBytes = 2 + kQ8Block;
struct Q8Element {
  static Lanes load(const std::byte* row, size_t i) noexcept {
    const std::byte* block = row + i / kQ8Block * kQ8BlockBytes;
    uint16_t scale;
    __builtin_memcpy(&scale, block, sizeof(scale));
    return multiply(splat(float_from_half(scale)), load_i8(block + 2 + i % kQ8Block));
  }
  // Rows are whole blocks, so there are no partial loads.
  static Lanes load_partial(const std::byte* row, size_t i, size_t) noexcept {
    return load(row, i);
  }
};

inline Lanes load_floats(const float* from, size_t count) noexcept {
  if (count >= kLanes) return load_f32(from);
  alignas(64) float padded[kLanes] = {};
  __builtin_memcpy(padded, from, count * sizeof(float));
  return load_f32(padded);
}

inline void store_floats(const Lanes& lanes, float* to, size_t count) noexcept {
  if (count >= kLanes) return store(lanes, to);
  float padded[kLanes];
  store(lanes, padded);
  __builtin_memcpy(to, padded, count * sizeof(float));
}

// out[r] = row r . x over n elements: lane l takes elements l, l + 16, ... Several rows at a time,
// because the additions of one row wait for each other.
template <class Element, size_t kRows>
void dot_rows(const std::byte* rows, size_t stride, const float* x, size_t n, float* out) noexcept {
  Lanes total[kRows];
  for (Lanes& lanes : total) lanes = zero_lanes();
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Lanes right = load_f32(x + i);
    for (size_t r = 0; r < kRows; ++r) {
      total[r] = fused_multiply_add(Element::load(rows + r * stride, i), right, total[r]);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    if (i < n) {
      const Lanes left = Element::load_partial(rows + r * stride, i, n - i);
      total[r] = fused_multiply_add(left, load_floats(x + i, n - i), total[r]);
    }
    out[r] = sum(total[r]);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
