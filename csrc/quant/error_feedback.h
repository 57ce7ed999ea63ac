// Quantisation with error feedback: the error of a column is made up for by the columns after it.
//
// What matters of a row's error e = weights - dequantised is e H e^T, where H is the covariance of
// the inputs. With H = (I + U) D (I + U)^T, U strictly upper triangular and D diagonal, that is
//
//   sum over columns of D[c] * (e[c] + sum over p < c of e[p] * U[p][c])^2
//
// so each column, in order, is rounded to what makes its term least (LDLQ of QuIP, Chee et al.,
// arXiv 2307.13304; the same codes as GPTQ, Frantar et al., arXiv 2210.17323). The scales of a unit
// of 256 columns are those that quantize_row finds for the unit's targets; then its codes are
// chosen one column after another.
#pragma once

#include <cstddef>

#include "quant/quant_type.h"

namespace edgemoe {

// Rows that are quantised at a time: lanes of the loops.
inline constexpr size_t kFeedbackRows = 16;

// The factor of a covariance S H S, S = diag(scale): many matrices share the factor of H.
struct FeedbackFactor {
  const float* upper = nullptr;   // U of H, [columns][columns]; zeros but right of the diagonal
  const float* scale = nullptr;   // [columns], positive; null for ones
  const float* pivots = nullptr;  // D of H, [columns]; null for ones. Types of grids weigh by it
};

// All types of can_quantize but floats. Those of grids choose eight columns at a time.
bool can_feed_back(QuantType type) noexcept;

// Bytes of scratch that quantize_with_feedback needs, 64-byte aligned.
size_t feedback_scratch_bytes(size_t columns) noexcept;

struct FeedbackRows {
  const float* weights = nullptr;  // [rows][columns]
  size_t rows = 0;                 // at most kFeedbackRows
  size_t columns = 0;
  const float* importance = nullptr;  // [columns] for the scales, as of quantize_row; may be null
};

// A row whose codes run out of range on the way is compared with the one without feedback, and the
// better of them is taken. Writes row-major GGUF bytes; a pure function of its arguments, the same
// bytes on every CPU.
// Requires: can_feed_back(type); what quantize_row requires of each row; U is finite.
void quantize_with_feedback(QuantType type, const FeedbackRows& rows, const FeedbackFactor& factor,
                            std::byte* out, std::byte* scratch) noexcept;

// errors[row]: e S H S e^T with e = weights - quantised, whatever quantised them; `pivots` is D,
// [columns], or null for ones. quantised: [rows][columns]. Scratch as above.
void measure_feedback_errors(const FeedbackRows& rows, const float* quantised,
                             const FeedbackFactor& factor, const float* pivots, double* errors,
                             std::byte* scratch) noexcept;

// The scale that gives S H S the diagonal `importance`, for an H of that `diagonal`; all [columns].
void scale_to_importance(const float* diagonal, const float* importance, size_t columns,
                         float* scale) noexcept;

}  // namespace edgemoe
