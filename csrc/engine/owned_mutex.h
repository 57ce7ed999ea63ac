// A mutex that knows its owner. A step asks whether to stop while it holds the engine, and may then
// be answered by a signal handler of the same thread: what that calls must not wait for the step.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace edgemoe {

class OwnedMutex {
 public:
  // Errors: those of refuse_owner.
  void lock();
  void unlock() noexcept;

  bool is_mine() const noexcept;  // this thread holds it
  // Errors: kArgument when this thread holds it; says what to do.
  void refuse_owner() const;

 private:
  std::mutex mutex_;
  std::atomic<std::thread::id> owner_{};
};

}  // namespace edgemoe
