// The encoder of a model that has one: reads a whole prompt before the decoder begins.
#pragma once

#include <cstdint>
#include <span>

#include "base/should_stop.h"
#include "model/forward.h"

namespace edgemoe {

// Evaluates `tokens` layer by layer, in batches of work.batch rows, and leaves in `cache` what each
// layer of the decoder makes of the result. Experts are asked for as in any prefill: those that a
// batch uses, in file order. Asks should_stop before every layer. Requires: an encoder;
// 1 <= tokens.size() <= cache.context(). Errors: kIo, kCancelled; the cache holds no source then.
void encode(Model& model, std::span<const int32_t> tokens, KvCache& cache,
            const ShouldStop& should_stop);

}  // namespace edgemoe
