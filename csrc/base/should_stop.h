// How whoever waits for something long stops it.
#pragma once

#include <functional>

#include "base/error.h"

namespace edgemoe {

// Asked now and then, by the thread that does the work. Empty: nobody stops it.
using ShouldStop = std::function<bool()>;

// Errors: kCancelled when asked to stop.
inline void throw_if_stopped(const ShouldStop& should_stop) {
  if (should_stop && should_stop()) throw Error(ErrorCode::kCancelled, "stopped by the caller");
}

}  // namespace edgemoe
