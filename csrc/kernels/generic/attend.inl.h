// Attention of one query head with a running maximum (kernel_table.h states the contract). A block
// is the part of [begin, end) between two multiples of kAttentionBlock. Per block: scores, new
// maximum, rescaling of what was summed before, then weights and values in position order.
#pragma once

#include "kernels/generic/float_ops.inl.h"
#include "kernels/kernel_table.h"

namespace edgemoe::kernels {
namespace {

// Positions [begin, end) of one block; scores[p - begin] becomes the weight of position p.
struct AttentionBlock {
  size_t begin;
  size_t end;
  alignas(64) float scores[kAttentionBlock];
};

struct AttentionState {
  float maximum;
  float sum;
};

template <class Element>
void score_block(const AttendArgs& args, AttentionBlock& block) noexcept {
  constexpr size_t kKeys = 4;
  const size_t count = block.end - block.begin;
  const std::byte* keys = args.keys + block.begin * args.key_stride;
  size_t i = 0;
  for (; i + kKeys <= count; i += kKeys) {
    dot_rows<Element, kKeys>(keys + i * args.key_stride, args.key_stride, args.query, args.key_size,
                             block.scores + i);
  }
  for (; i < count; ++i) {
    dot_rows<Element, 1>(keys + i * args.key_stride, args.key_stride, args.query, args.key_size,
                         block.scores + i);
  }
  for (size_t s = 0; s < count; ++s) block.scores[s] *= args.scale;
  if (args.softcap != 0.0f) softcap(args.softcap, count, block.scores);
}

// out = out * rescale + sum over the block of weight * value, for kWidth groups of 16 columns.
template <class Element, size_t kWidth>
void fold_columns(const AttendArgs& args, const AttentionBlock& block, float rescale,
                  size_t column) noexcept {
  Lanes total[kWidth];
  for (size_t w = 0; w < kWidth; ++w) {
    total[w] = multiply(load_f32(args.out + column + w * kLanes), splat(rescale));
  }
  for (size_t p = block.begin; p < block.end; ++p) {
    const std::byte* value = args.values + p * args.value_stride;
    const Lanes weight = splat(block.scores[p - block.begin]);
    for (size_t w = 0; w < kWidth; ++w) {
      total[w] = fused_multiply_add(weight, Element::load(value, column + w * kLanes), total[w]);
    }
  }
  for (size_t w = 0; w < kWidth; ++w) store(total[w], args.out + column + w * kLanes);
}

template <class Element>
void fold_last_columns(const AttendArgs& args, const AttentionBlock& block, float rescale,
                       size_t column) noexcept {
  const size_t count = args.value_size - column;
  Lanes total = multiply(load_floats(args.out + column, count), splat(rescale));
  for (size_t p = block.begin; p < block.end; ++p) {
    const std::byte* value = args.values + p * args.value_stride;
    total = fused_multiply_add(splat(block.scores[p - block.begin]),
                               Element::load_partial(value, column, count), total);
  }
  store_floats(total, args.out + column, count);
}

template <class Element>
void fold_values(const AttendArgs& args, const AttentionBlock& block, float rescale) noexcept {
  constexpr size_t kWide = 4;
  size_t column = 0;
  for (; column + kWide * kLanes <= args.value_size; column += kWide * kLanes) {
    fold_columns<Element, kWide>(args, block, rescale, column);
  }
  for (; column + kLanes <= args.value_size; column += kLanes) {
    fold_columns<Element, 1>(args, block, rescale, column);
  }
  if (column < args.value_size) fold_last_columns<Element>(args, block, rescale, column);
}

template <class Element>
void fold_block(const AttendArgs& args, AttentionBlock& block, AttentionState& state) noexcept {
  const size_t count = block.end - block.begin;
  score_block<Element>(args, block);
  const float block_maximum = largest_of(block.scores, count);
  const float maximum = block_maximum > state.maximum ? block_maximum : state.maximum;
  if (maximum == -__builtin_inff()) return;  // every score so far is -inf: nothing has weight
  const float rescale = exponential(state.maximum - maximum);
  map(block.scores, count, block.scores,
      [maximum](float score) { return exponential(score - maximum); });
  state.sum = __builtin_fmaf(state.sum, rescale, sum_of(block.scores, count));
  state.maximum = maximum;
  fold_values<Element>(args, block, rescale);
}

template <class Element>
void attend_as(const AttendArgs& args) noexcept {
  // The sink comes first, as if it were a position with value 0.
  AttentionState state{-__builtin_inff(), 0.0f};
  if (args.sink != nullptr && *args.sink > state.maximum) state = {*args.sink, 1.0f};
  for (size_t i = 0; i < args.value_size; ++i) args.out[i] = 0.0f;

  AttentionBlock block;
  for (size_t begin = args.begin; begin < args.end; begin = block.end) {
    const size_t boundary = (begin / kAttentionBlock + 1) * kAttentionBlock;
    block.begin = begin;
    block.end = boundary < args.end ? boundary : args.end;
    fold_block<Element>(args, block, state);
  }
  if (state.sum == 0.0f) return;
  map(args.out, args.value_size, args.out, [&](float value) { return value / state.sum; });
}

inline void attend(const AttendArgs& args) noexcept {
  switch (args.type) {
    case KvType::kF32:
      return attend_as<F32Element>(args);
    case KvType::kF16:
      return attend_as<F16Element>(args);
    case KvType::kQ8_0:
      return attend_as<Q8Element>(args);
  }
}

}  // namespace
}  // namespace edgemoe::kernels
