// What the products of all quantised types share: the size of a block, and what a row of rounded
// activations brings to a fold of weights (unpack.h says what a fold is).
#pragma once

#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

inline constexpr size_t kMaxBlockBytes = 256;
#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations) \
  static_assert(bytes <= kMaxBlockBytes);
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE

// How a format uses minima: not at all; dmin alone, with integer minima of 1; dmin and integers.
enum class Minimum : uint8_t { kNone, kPlain, kScaled };

struct FoldActivations {
  const int8_t* codes;
  const int16_t* sums;
  float scale;
};

// One row of args.x.
struct TokenRow {
  const int8_t* codes;
  const int16_t* sums;
  const float* scales;
};

inline size_t activation_columns(const MatmulArgs& args) noexcept {
  return args.x.encoding == ActivationEncoding::kQ8Block256 ? 256 : 32;
}

inline TokenRow token_row(const MatmulArgs& args, size_t token) noexcept {
  const size_t row = args.token_index == nullptr ? token : args.token_index[token];
  return {args.x.codes + row * args.x.code_stride, args.x.sums + row * (args.columns / kSumBlock),
          args.x.scales + row * (args.columns / activation_columns(args))};
}

// The same; a packed format's fold is one block of activations.
template <class Format>
size_t activation_columns(const MatmulArgs& args) noexcept {
  return Format::kColumns != 0 ? Format::kColumns : activation_columns(args);
}

// Rows that are multiplied together.
struct TileRows {
  size_t first;
  size_t count;  // <= kTileRows
};

// Where a fold lies along the columns.
struct FoldColumns {
  size_t first;             // column
  size_t count;             // columns
  size_t activation_block;  // index of the activation block that holds the first column
};

inline FoldActivations fold_activations(const TokenRow& row, const FoldColumns& columns) noexcept {
  return {row.codes + columns.first, row.sums + columns.first / kSumBlock,
          row.scales[columns.activation_block]};
}

}  // namespace
}  // namespace edgemoe::kernels
