#include "bitwidth/row_packing.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/units.h"
#include "quant/error_feedback.h"
#include "quant/layout.h"
#include "quant/quantize.h"
#include "quant/unpack.h"

namespace edgemoe {
namespace {

constexpr size_t kLanes = 8;

// Sums in fixed lanes and a fixed order, so that a loss is the same number however the work was
// cut.
template <bool kWeighted>
RowLoss loss_in_lanes(const float* weights, const float* packed, const float* importance,
                      size_t count) noexcept {
  double error[kLanes] = {};
  double power[kLanes] = {};
  const auto add = [&](size_t lane, size_t i) {
    const double factor = kWeighted ? static_cast<double>(importance[i]) : 1.0;
    const double weight = static_cast<double>(weights[i]);
    const double change = weight - static_cast<double>(packed[i]);
    error[lane] += factor * change * change;
    power[lane] += factor * weight * weight;
  };
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (size_t lane = 0; i < count; ++i, ++lane) add(lane, i);
  RowLoss loss;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    loss.error += error[lane];
    loss.power += power[lane];
  }
  return loss;
}

RowLoss loss_of(const float* weights, const float* packed, const float* importance,
                size_t count) noexcept {
  return importance == nullptr ? loss_in_lanes<false>(weights, packed, nullptr, count)
                               : loss_in_lanes<true>(weights, packed, importance, count);
}

// The first weight that is not finite, or `count`. The largest magnitude tells quickly that there
// is none.
size_t first_bad(const float* weights, size_t count) noexcept {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(weights[i]) & 0x7FFFFFFFu);
  }
  constexpr uint32_t kInfinity = 0x7F800000u;
  if (largest < kInfinity) return count;
  size_t bad = 0;
  while (std::isfinite(weights[bad])) ++bad;
  return bad;
}

// The weights in the scratch to task.out, and their losses.
void quantize_task(const RowTask& task, RowScratch& scratch) noexcept {
  const PackedTensor& tensor = *task.tensor;
  const size_t columns = tensor.columns();
  const size_t stride = row_bytes(tensor.type, columns);
  const uint64_t matrix = task.first_row / tensor.rows_per_importance;
  const float* importance =
      tensor.importance == nullptr ? nullptr : tensor.importance + matrix * columns;
  if (tensor.feedback.upper != nullptr) {
    const uint64_t skipped = matrix * tensor.feedback.step * columns;
    FeedbackFactor factor{tensor.feedback.upper + skipped * columns, nullptr,
                          tensor.feedback.pivots + skipped};
    if (tensor.feedback.diagonal != nullptr) {
      scale_to_importance(tensor.feedback.diagonal, importance, columns, scratch.scale());
      factor.scale = scratch.scale();
    }
    quantize_with_feedback(tensor.type, {scratch.weights(), task.num_rows, columns, importance},
                           factor, task.out, scratch.feedback());
  }
  for (size_t row = 0; row < task.num_rows; ++row) {
    const float* weights = scratch.weights() + row * columns;
    std::byte* out = task.out + row * stride;
    if (tensor.feedback.upper == nullptr) {
      quantize_row(tensor.type, weights, columns, importance, out);
    }
    dequantize(tensor.type, out, columns, scratch.packed());
    task.losses[row] = loss_of(weights, scratch.packed(), importance, columns);
  }
}

}  // namespace

RowScratch::RowScratch(size_t columns)
    : weights_(kTaskRows * columns),
      packed_(columns),
      scale_(columns),
      feedback_(ceil_div(feedback_scratch_bytes(columns), sizeof(float))),
      group_(kRowGroup * columns * sizeof(float)) {}

uint64_t RowScratch::bytes(size_t columns) noexcept {
  return (2 + kTaskRows + kRowGroup) * columns * sizeof(float) + feedback_scratch_bytes(columns);
}

bool pack_rows(const RowTask& task, RowScratch& scratch, BadWeight& bad) noexcept {
  const PackedTensor& tensor = *task.tensor;
  const size_t columns = tensor.columns();
  const size_t source_stride = row_bytes(tensor.source_type, columns);
  const size_t stride = row_bytes(tensor.type, columns);
  if (tensor.keeps_type() && tensor.ungroup == tensor.regroup) {
    std::memcpy(task.out, task.source, task.num_rows * stride);
    return true;
  }
  if (tensor.ungroup) {
    ungroup(tensor.source_type, task.source, task.num_rows, columns, scratch.group());
  }
  if (tensor.keeps_type()) std::memcpy(task.out, task.source, task.num_rows * stride);
  for (size_t row = 0; row < task.num_rows && !tensor.keeps_type(); ++row) {
    float* weights = scratch.weights() + row * columns;
    dequantize(tensor.source_type, task.source + row * source_stride, columns, weights);
    const size_t column = first_bad(weights, columns);
    if (column != columns) {
      bad = {task.first_row + row, column};
      return false;
    }
  }
  if (!tensor.keeps_type()) quantize_task(task, scratch);
  if (tensor.regroup) regroup(tensor.type, task.out, task.num_rows, columns, scratch.group());
  return true;
}

}  // namespace edgemoe
