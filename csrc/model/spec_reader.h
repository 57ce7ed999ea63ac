// Metadata + architecture row + tensors present -> a validated ModelSpec.
#pragma once

#include <cstdint>

#include "gguf/gguf_file.h"
#include "model/model_spec.h"
#include "weights/model_tensors.h"

namespace edgemoe {

// What binding tensors needs; read first. Errors: kUnsupported for an architecture that is not in
// the table (the message lists those that are); kFormat for a missing or impossible count.
ModelCounts read_counts(const GgufFile& file);

// Errors: kFormat for values that contradict each other or a tensor's shape (naming key or tensor);
// kUnsupported for a known key with an unknown value (naming both).
ModelSpec read_spec(const GgufFile& file, const ModelTensors& tensors, const ModelCounts& counts);

}  // namespace edgemoe
