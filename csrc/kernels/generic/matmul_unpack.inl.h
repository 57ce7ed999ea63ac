// Products with any quantised type, through its scalar unpack: the specification. A fold is
// unpacked once and met by every token; the sums live in the output until the row is done.
#pragma once

#include "kernels/generic/fold.inl.h"
#include "kernels/kernel_table.h"
#include "quant/layout.h"
#include "quant/unpack.h"

namespace edgemoe::kernels {
namespace {

inline int32_t dot_sub_block(const int8_t* a, const int8_t* b) noexcept {
  int32_t total = 0;
  for (size_t i = 0; i < kSubBlock; ++i) total += int32_t{a[i]} * int32_t{b[i]};
  return total;
}

inline float add_fold(const UnpackedFold& fold, size_t elements, bool with_min,
                      const FoldActivations& x, float total) noexcept {
  int32_t products = 0;
  for (size_t s = 0; s < elements / kSubBlock; ++s) {
    products += fold.scale[s] * dot_sub_block(fold.code + s * kSubBlock, x.codes + s * kSubBlock);
  }
  total = __builtin_fmaf(fold.d * x.scale, static_cast<float>(products), total);
  if (!with_min) return total;
  int32_t offsets = 0;
  for (size_t s = 0; s < elements / kSubBlock; ++s) offsets += fold.min[s] * x.sums[s];
  return __builtin_fmaf(-(fold.dmin * x.scale), static_cast<float>(offsets), total);
}

inline void unpack_row(QuantType type, const MatmulArgs& args, size_t row) noexcept {
  const QuantTraits& quant = traits(type);
  const UnpackFn unpack = unpack_function(type);
  const size_t elements = fold_elements(type);
  const bool with_min = has_min(type);
  for (size_t t = 0; t < args.num_tokens; ++t) args.out[t * args.out_stride + row] = 0.0f;
  for (size_t block = 0; block < args.columns / quant.block_elements; ++block) {
    std::byte bytes[kMaxBlockBytes];
    extract_block(type, args.weights, args.rows, args.columns, row, block, bytes);
    for (size_t f = 0; f < quant.block_elements / elements; ++f) {
      UnpackedFold fold;
      unpack(bytes, f, fold);
      const size_t column = block * quant.block_elements + f * elements;
      const FoldColumns columns{column, elements, column / activation_columns(args)};
      for (size_t t = 0; t < args.num_tokens; ++t) {
        float& total = args.out[t * args.out_stride + row];
        const FoldActivations x = fold_activations(token_row(args, t), columns);
        total = add_fold(fold, elements, with_min, x, total);
      }
    }
  }
}

template <QuantType kType>
struct UnpackedProduct {
  static void multiply(const MatmulArgs& args) noexcept {
    for (size_t row = args.row_begin; row < args.row_end; ++row) unpack_row(kType, args, row);
  }
};

}  // namespace
}  // namespace edgemoe::kernels
