// The commands of edgemoe-bench. Each prints one JSON object's members into `json`.
#pragma once

#include "arguments.h"
#include "engine/model_file.h"
#include "json_writer.h"

namespace edgemoe::bench {

// The options of commands that load a model: --memory --context --batch --threads --io --eviction
EngineOptions load_options(Arguments& arguments);

// FILE --tokens N --repetitions R --memory SIZE --context N --batch N --threads N --io NAME
// --eviction NAME
void prefill_command(Arguments& arguments, JsonWriter& json);
void decode_command(Arguments& arguments, JsonWriter& json);
// As these, without --repetitions: a hash of the logits of N tokens.
void fingerprint_command(Arguments& arguments, JsonWriter& json);
// --type NAME --columns N --rows N --threads N: every level, matrix x vector and matrix x matrix.
void kernels_command(Arguments& arguments, JsonWriter& json);
// FILE --bytes SIZE --depth N --io NAME --seconds N: random reads.
void reads_command(Arguments& arguments, JsonWriter& json);

}  // namespace edgemoe::bench
