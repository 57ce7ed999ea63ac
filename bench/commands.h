// The commands of edgemoe-bench. Each prints one JSON object's members into `json`.
// Errors of all: kArgument; kBudget where the memory that the options ask for is not there.
#pragma once

#include "arguments.h"
#include "engine/model_file.h"
#include "json_writer.h"

namespace edgemoe::bench {

// The options of commands that load a model: --memory --context --batch --threads --kv-type --io
// --eviction
EngineOptions load_options(Arguments& arguments);

// Errors: kBudget when this process cannot have so many bytes; the message names the options that
// make them fewer, such as "--rows or --columns".
void require_memory(uint64_t bytes, const std::string& options);

// FILE --tokens N --depth N --repetitions R and the options of load_options; without --context it
// is made to hold what --depth asks for.
void prefill_command(Arguments& arguments, JsonWriter& json);
void decode_command(Arguments& arguments, JsonWriter& json);
// As these, without --repetitions: a hash of the logits of N tokens.
void fingerprint_command(Arguments& arguments, JsonWriter& json);
// --type NAME --columns N --rows N --threads N: every level, matrix x vector and matrix x matrix.
void kernels_command(Arguments& arguments, JsonWriter& json);
// --heads N --kv-heads N --size N --context N --rows N --type NAME --threads N: one layer of
// attention on every level.
void attention_command(Arguments& arguments, JsonWriter& json);
// FILE --bytes SIZE --depth N --io NAME --seconds N: random reads.
void reads_command(Arguments& arguments, JsonWriter& json);

}  // namespace edgemoe::bench
