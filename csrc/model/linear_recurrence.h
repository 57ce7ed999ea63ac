// The recurrence of the kinds of attention whose heads keep a matrix, over the rows of a step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/step.h"

namespace edgemoe {

// Vectors of row 0; those of row r lie r * stride on, heads one after another.
struct RecurrenceRows {
  const float* keys = nullptr;     // of num_kv_heads heads
  const float* queries = nullptr;  // likewise
  const float* values = nullptr;   // of num_heads heads
  size_t stride = 0;
  const float* rate = nullptr;   // [rows][num_heads]
  const float* decay = nullptr;  // [rows][num_heads]
  bool corrects = false;         // see RecurrenceArgs
};

// work.attended[row] = what each head gives; moves the states of the step's sequences on.
void recur_heads(const StepContext& step, uint32_t layer, const RecurrenceRows& rows);

}  // namespace edgemoe
