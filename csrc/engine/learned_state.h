// What is kept between runs, in a folder of the user: of a model what its experts are used for, of
// a device how much it profits from in flight. A folder that is empty, damaged or not writable
// costs time, never a result.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/section_file.h"
#include "base/should_stop.h"
#include "engine/model_file.h"
#include "engine/options.h"

namespace edgemoe {

// `folder` may be empty: nothing is kept then.
Sections read_model_state(const std::string& folder, const ModelFile& model);
void write_model_state(const std::string& folder, const ModelFile& model, const Sections& state);

// Bytes in flight that the device of the model's experts profits from, for reads as long as
// theirs: from the folder, or measured (a second or two on slow devices) and kept there. What a
// device that cannot be measured gets is a guess, and is not kept. `files` are the model's shards.
// Asks should_stop while it measures. Errors: kCancelled.
uint64_t device_in_flight_bytes(const ModelFile& model, std::span<const File> files,
                                const EngineOptions& options, const ShouldStop& should_stop);

}  // namespace edgemoe
