#include "io/pread_reader.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/start_threads.h"

namespace edgemoe {
namespace {

// First in, first out; room is taken once.
template <class T>
class Ring {
 public:
  explicit Ring(size_t capacity) : items_(capacity) {}
  bool empty() const noexcept { return size_ == 0; }
  void push(const T& item) noexcept {
    items_[(first_ + size_) % items_.size()] = item;
    ++size_;
  }
  T pop() noexcept {
    const T item = items_[first_];
    first_ = (first_ + 1) % items_.size();
    --size_;
    return item;
  }

 private:
  std::vector<T> items_;
  size_t first_ = 0;
  size_t size_ = 0;
};

// Signals are for the threads of the program that uses us.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

class PreadReader final : public AsyncReader {
 public:
  PreadReader(std::string_view name, size_t depth, size_t num_threads)
      : name_(name), depth_(depth), waiting_(depth), finished_(depth) {
    const SignalsBlocked blocked;
    const int error = start_threads(threads_, num_threads, [this](size_t) { serve(); });
    // With fewer it is slower.
    if (threads_.empty()) throw Error(ErrorCode::kArgument, describe_refused_thread(error));
  }

  ~PreadReader() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::string_view name() const noexcept override { return name_; }
  size_t depth() const noexcept override { return depth_; }
  size_t outstanding() const noexcept override { return outstanding_; }

  size_t submit(std::span<const ReadRequest> requests) noexcept override {
    const size_t count = std::min(requests.size(), depth_ - outstanding_);
    {
      const std::lock_guard lock(mutex_);
      for (const ReadRequest& request : requests.first(count)) waiting_.push(request);
    }
    outstanding_ += count;
    count == 1 ? work_.notify_one() : work_.notify_all();
    return count;
  }

  size_t drain(std::span<ReadResult> results, Wait wait) noexcept override {
    if (outstanding_ == 0) return 0;
    std::unique_lock lock(mutex_);
    if (wait == Wait::kAtLeastOne) done_.wait(lock, [this] { return !finished_.empty(); });
    size_t count = 0;
    while (count < results.size() && !finished_.empty()) results[count++] = finished_.pop();
    outstanding_ -= count;
    return count;
  }

 private:
  void serve() noexcept {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) return;  // what was submitted is finished before we stop
      const ReadRequest request = waiting_.pop();
      lock.unlock();
      const ssize_t count = ::pread(request.file->descriptor(), request.destination, request.bytes,
                                    static_cast<off_t>(request.offset));
      const int64_t outcome = count < 0 ? -int64_t{errno} : int64_t{count};
      lock.lock();
      finished_.push({request.tag, outcome});
      done_.notify_one();
    }
  }

  const std::string name_;
  const size_t depth_;
  size_t outstanding_ = 0;  // only the owner's thread touches it
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable done_;
  Ring<ReadRequest> waiting_;
  Ring<ReadResult> finished_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<AsyncReader> make_pread_reader(std::string_view name, size_t depth,
                                               size_t num_threads) {
  return std::make_unique<PreadReader>(name, depth, num_threads);
}

}  // namespace edgemoe
