#include "engine/owned_mutex.h"

#include "base/error.h"

namespace edgemoe {

void OwnedMutex::lock() {
  refuse_owner();
  mutex_.lock();
  owner_ = std::this_thread::get_id();
}

void OwnedMutex::unlock() noexcept {
  owner_ = std::thread::id();
  mutex_.unlock();
}

bool OwnedMutex::is_mine() const noexcept {
  return owner_ == std::this_thread::get_id();
}

void OwnedMutex::refuse_owner() const {
  if (!is_mine()) return;
  throw Error(ErrorCode::kArgument,
              "a signal handler called this while its thread computes with the model; there, only "
              "the statistics and the memory plan can be asked for. Call it from another thread, "
              "or set a flag in the handler and call it when the computation has returned");
}

}  // namespace edgemoe
