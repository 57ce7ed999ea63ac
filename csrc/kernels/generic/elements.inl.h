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

// row . x over n elements: lane l takes elements l, l + 16, ...
template <class Element>
float dot_row(const std::byte* row, const float* x, size_t n) noexcept {
  Lanes total = zero_lanes();
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    total = fused_multiply_add(Element::load(row, i), load_f32(x + i), total);
  }
  if (i < n) {
    total = fused_multiply_add(Element::load_partial(row, i, n - i), load_floats(x + i, n - i),
                               total);
  }
  return sum(total);
}

}  // namespace
}  // namespace edgemoe::kernels
