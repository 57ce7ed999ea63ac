// Cosines and sines of the rows of one step, shared by all layers that rotate alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "model/model_spec.h"

namespace edgemoe {

class RopeTable {
 public:
  // `factors` divides the frequencies (may be null). Tables for up to max_rows rows.
  RopeTable(const ModelSpec& spec, const float* factors, size_t max_rows);
  static uint64_t bytes(const ModelSpec& spec, size_t max_rows);

  // Computes the angles of the step's positions.
  void set_positions(std::span<const uint32_t> positions, ThreadPool& pool);

  // [rope.dimensions / 2] each.
  const float* cos(uint32_t layer, size_t row) const noexcept;
  const float* sin(uint32_t layer, size_t row) const noexcept;

 private:
  struct Rotation {
    RopeSpec spec;
    std::vector<double> frequencies;  // radians per position
    std::vector<float> cos;           // [max_rows][pairs]
    std::vector<float> sin;
  };
  std::vector<Rotation> rotations_;
  std::vector<uint32_t> rotation_of_layer_;
};

}  // namespace edgemoe
