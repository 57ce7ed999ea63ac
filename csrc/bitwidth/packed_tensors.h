// The tensors of the output: where each comes from and what becomes of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitwidth/pack_request.h"
#include "bitwidth/pack_source.h"

namespace edgemoe {

// Rows of the source that lie one after another: a whole matrix, or a stack of them.
struct PackPiece {
  uint32_t shard = 0;
  uint64_t offset = 0;
  uint64_t rows = 0;
};

// The factors that a tensor's matrices are quantised with; see PackFeedback.
struct TensorFeedback {
  const float* upper = nullptr;     // of the first matrix; null: no feedback
  const float* pivots = nullptr;    // likewise
  const float* diagonal = nullptr;  // scales the factor to the importance; null: it is the matrix's
  uint64_t step = 0;                // factors to that of the next matrix: 0 or 1
};

struct PackedTensor {
  std::string name;
  std::vector<uint64_t> shape;  // columns first
  QuantType source_type = QuantType::kF32;
  QuantType type = QuantType::kF32;
  uint64_t rows = 0;
  std::vector<PackPiece> pieces;      // their rows make up the tensor
  bool ungroup = false;               // the source is in the in-memory layout
  bool regroup = false;               // the output is to be
  const float* importance = nullptr;  // null: all columns count alike
  uint64_t rows_per_importance = 0;   // so many rows, a matrix, share one row of importance
  TensorFeedback feedback;

  uint64_t columns() const noexcept { return shape[0]; }
  uint64_t weights() const noexcept { return rows * columns(); }
  uint64_t bytes() const noexcept { return rows * row_bytes(type, columns()); }
  bool keeps_type() const noexcept { return type == source_type; }
};

// Tensors that are finished together: one tensor, or the matrices of one expert or low copy.
struct PackUnit {
  size_t first_tensor = 0;
  size_t num_tensors = 1;
  int64_t expert = -1;    // layer * num_experts + expert; -1: no expert of the container
  bool low_copy = false;  // of that expert
};

struct PackedTensors {
  std::vector<PackedTensor> tensors;  // in the order of the file: dense ones first
  std::vector<PackUnit> units;        // in that order
};

// Errors: kArgument for a type that a tensor cannot get, for importance of another shape or with
// negative or infinite numbers, each naming the tensor, and for a stock layout whose experts have
// different types.
PackedTensors packed_tensors(const PackSource& source, const PackRequest& request);

}  // namespace edgemoe
