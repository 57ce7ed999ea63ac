// The commands of edgemoe-bench. Each prints one JSON object's members into `json`.
#pragma once

#include "arguments.h"
#include "json_writer.h"

namespace edgemoe::bench {

// FILE --tokens N --repetitions R --memory SIZE --context N --batch N --threads N --io NAME
// --eviction NAME
void prefill_command(Arguments& arguments, JsonWriter& json);
void decode_command(Arguments& arguments, JsonWriter& json);
// --type NAME --columns N --rows N --threads N: every level, matrix x vector and matrix x matrix.
void kernels_command(Arguments& arguments, JsonWriter& json);
// FILE --bytes SIZE --depth N --io NAME --seconds N: random reads.
void reads_command(Arguments& arguments, JsonWriter& json);

}  // namespace edgemoe::bench
