// Attention of a step's queries to the cache, cut into work items for all threads. All kinds of
// attention that have keys end here: they differ in where queries come from and results go.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/step.h"

namespace edgemoe {

// One vector per row and head, that of (row, head) at data + row * row_stride + head * head_stride.
template <class Float>
struct HeadVectors {
  Float* data = nullptr;
  size_t row_stride = 0;
  size_t head_stride = 0;

  Float* of(size_t row, size_t head) const noexcept {
    return data + row * row_stride + head * head_stride;
  }
};

struct QueryPlaces {
  HeadVectors<const float> queries;
  HeadVectors<float> results;
  const float* sinks = nullptr;  // one per head; may be null
  bool cross = false;            // LayerSpec::cross, not LayerSpec::attention
};

// Requires: the caches hold the keys and values that the rows see.
void attend_queries(const StepContext& step, uint32_t layer, const QueryPlaces& places);

}  // namespace edgemoe
