// Refuses a spec or tensors that the forward pass could not compute safely. Everything that the
// forward pass takes for granted about sizes is established here.
#pragma once

#include <string>

#include "model/model_spec.h"
#include "weights/model_tensors.h"

namespace edgemoe {

// Errors: kFormat naming `source` and the value that is out of range.
void validate_spec(const ModelSpec& spec, const std::string& source);

// Every tensor has the shape that the spec implies, every required tensor is there, and no bound
// tensor is left unused. Errors: kFormat (shape, missing), kUnsupported (unused), naming the
// tensor.
void validate_tensors(const ModelSpec& spec, const ModelTensors& tensors,
                      const std::string& source);

}  // namespace edgemoe
