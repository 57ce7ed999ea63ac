// What each candidate type would cost each matrix of an expert: an estimate of
//
//   error = sum over the expert's tokens t of |w_t dy_t|^2
//
// where dy_t is how far the expert's output moves when that matrix alone has the type (quantised
// with its importance), and w_t is the weight of the output. With the sums of expert_statistics.h:
//
// down.  dy_i = sum_r E_ir h_r, E = quantised - original. Errors of different columns are nearly
//   uncorrelated, so the cross terms cancel in the sum over tokens and rows:
//     error = sum_ir E_ir^2 sum_t w_t^2 h_tr^2 = sum_ir E_ir^2 hidden_r
//
// gate.  To first order dh_r = (dh_r/dg_r) dg_r, dg_r = sum_c E_rc x_c, and dy = sum_r D_r dh_r
//   with D_r column r of down. Without the cross terms of different rows and columns:
//     error = sum_r |D_r|^2 sum_c E_rc^2 sum_t w_t^2 (dh_r/dg_r)_t^2 x_tc^2
//   The joint sum over tokens would take a matrix for each expert. The mean over tokens that
//   weighs token t by w_t^2 is taken of both factors apart, as if they were independent, which RMS
//   norms make plausible (|x| hardly varies): with W = sum_t w_t^2,
//     sum_t w_t^2 a_t b_t = W mean(a b) ~ W mean(a) mean(b) = (sum w^2 a) (sum w^2 b) / W
//   so that
//     error = 1/W sum_r gate_row_weight_r sum_c input_c E_rc^2
//     gate_row_weight_r = |D_r|^2 gate_slope_r,  input_c = sum_t w_t^2 x_tc^2
//   The weight w^2 is in both sums and W in the denominator takes it out of one.
//
// up.  The same with up_slope.
//
// Where factors of covariances are given, the columns' cross terms are counted too, e H e^T in
// place of sum_c H_cc e_c^2, and types that allow it are quantised with error feedback, as the
// packer does (quant/error_feedback.h).
//
// A matrix costs nothing in its own type, and infinity in one whose blocks its rows do not fill.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "quant/error_feedback.h"
#include "weights/expert_layout.h"
#include "weights/matrix.h"

namespace edgemoe {

// A covariance (I + U) D (I + U)^T of inputs or hidden units, scaled. Without `upper`: none.
struct CovarianceFactor {
  FeedbackFactor factor;
  const float* pivots = nullptr;  // D
};

// Sums over the tokens of one expert, see expert_statistics.h.
struct ExpertImportance {
  const float* input = nullptr;       // [gate.columns]
  const float* hidden = nullptr;      // [gate.rows]
  const float* gate_slope = nullptr;  // [gate.rows]
  const float* up_slope = nullptr;    // [gate.rows]
  double weight_squared = 0;
  CovarianceFactor input_factor;   // of gate and up
  CovarianceFactor hidden_factor;  // of down
};

// Where the results go. Borrowed.
struct ExpertErrorPlaces {
  double* errors = nullptr;          // [gate, up, down][candidates]
  float* gate_row_weight = nullptr;  // [gate.rows]
  float* up_row_weight = nullptr;    // [gate.rows]
};

using ExpertMatrices = std::array<MatrixView, kNumExpertMatrices>;  // in-memory layout

class QuantizationError {
 public:
  // Bytes that an object takes for matrices of at most `most_columns` columns.
  static uint64_t bytes(size_t most_columns, size_t num_candidates, size_t num_threads) noexcept;
  // `most_rows` rows of each matrix, evenly spread, stand for all of them; 0 takes all. Errors:
  // kArgument for a candidate that cannot be quantised.
  QuantizationError(std::span<const QuantType> candidates, size_t most_rows, size_t most_columns,
                    size_t num_threads);

  // Results do not depend on the threads. False when a weight is not finite: the results are worth
  // nothing then.
  bool measure(ThreadPool& pool, const ExpertMatrices& matrices, const ExpertImportance& importance,
               const ExpertErrorPlaces& places);

 private:
  struct Scratch;
  struct Rows;
  Scratch scratch_of(size_t worker) noexcept;
  void measure_down_norms(ThreadPool& pool, const MatrixView& down);
  bool measure_rows(const Rows& rows, const Scratch& scratch) noexcept;
  void quantize_rows(QuantType type, const Rows& rows, const Scratch& scratch) noexcept;
  double total(const MatrixView& matrix, const double* row_weight, const double* row_errors,
               size_t stride) const noexcept;

  std::vector<QuantType> candidates_;
  size_t most_rows_;
  size_t most_columns_;
  AlignedBuffer scratch_;
  std::vector<double> down_norms_;   // squared norms of the columns of down
  std::vector<double> row_weights_;  // of gate, then up
  std::vector<double> row_errors_;   // [matrix][sampled row][candidate]
};

}  // namespace edgemoe
