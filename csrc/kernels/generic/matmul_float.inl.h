// Products with F32, F16 and BF16 matrices (GGUF rows): 16 lanes by column. A tile of rows and
// tokens shares its loads; every element of it is summed on its own, in the same order.
#pragma once

#include "kernels/generic/elements.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline const float* activation_row(const MatmulArgs& args, size_t token) noexcept {
  const size_t row = args.token_index == nullptr ? token : args.token_index[token];
  return args.x.values + row * args.columns;
}

template <class Element, size_t kRows, size_t kTokens>
void float_tile(const MatmulArgs& args, size_t row_bytes, size_t row, size_t token) noexcept {
  const std::byte* weights[kRows];
  const float* x[kTokens];
  Lanes total[kRows][kTokens];
  for (size_t r = 0; r < kRows; ++r) weights[r] = args.weights + (row + r) * row_bytes;
  for (size_t t = 0; t < kTokens; ++t) x[t] = activation_row(args, token + t);
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) total[r][t] = zero_lanes();
  }
  size_t i = 0;
  for (; i + kLanes <= args.columns; i += kLanes) {
    Lanes right[kTokens];
    for (size_t t = 0; t < kTokens; ++t) right[t] = load_f32(x[t] + i);
    for (size_t r = 0; r < kRows; ++r) {
      const Lanes left = Element::load(weights[r], i);
      for (size_t t = 0; t < kTokens; ++t) {
        total[r][t] = fused_multiply_add(left, right[t], total[r][t]);
      }
    }
  }
  const size_t rest = args.columns - i;
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) {
      if (rest != 0) {
        total[r][t] = fused_multiply_add(Element::load_partial(weights[r], i, rest),
                                         load_floats(x[t] + i, rest), total[r][t]);
      }
      args.out[(token + t) * args.out_stride + row + r] = sum(total[r][t]);
    }
  }
}

// All rows for tokens [token, token + kTokens).
template <class Element, size_t kTokens>
void float_rows(const MatmulArgs& args, size_t row_bytes, size_t token) noexcept {
  constexpr size_t kRows = kFloatTileRows;
  size_t row = args.row_begin;
  for (; row + kRows <= args.row_end; row += kRows) {
    float_tile<Element, kRows, kTokens>(args, row_bytes, row, token);
  }
  for (; row < args.row_end; ++row) float_tile<Element, 1, kTokens>(args, row_bytes, row, token);
}

template <class Element, size_t kElementBytes>
void matmul_float(const MatmulArgs& args) noexcept {
  const size_t row_bytes = args.columns * kElementBytes;
  size_t token = 0;
  for (; token + kFloatTileTokens <= args.num_tokens; token += kFloatTileTokens) {
    float_rows<Element, kFloatTileTokens>(args, row_bytes, token);
  }
  for (; token < args.num_tokens; ++token) float_rows<Element, 1>(args, row_bytes, token);
}

}  // namespace
}  // namespace edgemoe::kernels
