// What a step leaves in an event trace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "experts/event_trace.h"
#include "model/model_spec.h"
#include "model/step.h"

namespace edgemoe {

// Room for all events of one step of `batch` rows.
EventTrace::Capacity step_capacity(const ModelSpec& spec, size_t batch) noexcept;

// Records the experts of every row, when the step has a trace. Requires: the layer's request was
// made and nothing taken from it, so that what is resident now was so when it was asked for.
void record_routing(const StepContext& step, uint32_t layer, const ExpertStore& store) noexcept;

}  // namespace edgemoe
