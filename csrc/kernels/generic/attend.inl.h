// Attention of several queries with running maxima (kernel_table.h states the contract). Per block,
// the positions between two multiples of kAttentionBlock: scores of all queries; then for each its
// new maximum, weights, and the rescaling of what was summed before; then the values.
#pragma once

#include "kernels/generic/attend_scores.inl.h"
#include "kernels/generic/attend_values.inl.h"
#include "kernels/generic/float_ops.inl.h"

namespace edgemoe::kernels {
namespace {

struct AttentionState {
  float maximum;
  float sum;
};

// The sink comes first, as if it were a position with value 0.
inline AttentionState first_state(const AttendQuery& query) noexcept {
  const float lowest = -__builtin_inff();
  if (query.sink != nullptr && *query.sink > lowest) return {*query.sink, 1.0f};
  return {lowest, 0.0f};
}

// Makes weights of the scores of positions `range`.
inline void weigh(const AttendArgs& args, const AttendQuery& query, AttentionState& state,
                  float* scores, const Range& range) noexcept {
  const size_t count = range.end - range.begin;
  scale(args.scale, count, scores);
  if (args.softcap != 0.0f) softcap(args.softcap, count, scores);
  if (query.bias != nullptr) add(query.bias + range.begin, count, scores);
  const float block_maximum = largest_of(scores, count);
  const float maximum = block_maximum > state.maximum ? block_maximum : state.maximum;
  if (maximum == -__builtin_inff()) {  // every score so far is -inf: nothing has weight
    __builtin_memset(scores, 0, count * sizeof(float));
    return;
  }
  const float rescale = exponential(state.maximum - maximum);
  map(scores, count, scores, [maximum](float score) { return exponential(score - maximum); });
  state.sum = __builtin_fmaf(state.sum, rescale, sum_of(scores, count));
  state.maximum = maximum;
  if (rescale != 1.0f) scale(rescale, args.value_size, query.out);
}

template <class Element>
void attend_as(const AttendArgs& args) noexcept {
  AttentionState states[kMaxAttendQueries];
  for (size_t q = 0; q < args.num_queries; ++q) {
    states[q] = first_state(args.queries[q]);
    __builtin_memset(args.queries[q].out, 0, args.value_size * sizeof(float));
  }
  BlockScores scores;
  ConvertedRows converted;
  const Range reach = reach_of(args.queries, args.num_queries);
  Range block;
  for (block.begin = reach.begin; block.begin < reach.end; block.begin = block.end) {
    const size_t boundary = (block.begin / kAttentionBlock + 1) * kAttentionBlock;
    block.end = smaller_of(boundary, reach.end);
    score_block<Element>(args, block, scores, converted);
    for (size_t q = 0; q < args.num_queries; ++q) {
      const Range range = positions_of(args.queries[q], block);
      if (is_empty(range)) continue;
      weigh(args, args.queries[q], states[q], scores.of(q, range.begin), range);
    }
    fold_block<Element>(args, block, scores, converted);
  }
  for (size_t q = 0; q < args.num_queries; ++q) {
    const float sum = states[q].sum;
    float* out = args.queries[q].out;
    if (sum != 0.0f) map(out, args.value_size, out, [sum](float value) { return value / sum; });
  }
}

inline void attend(const AttendArgs& args) noexcept {
  if (args.num_queries == 0) return;
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
