#include "base/thread_pool.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

namespace edgemoe {

// One job at a time. A worker joins a job by its generation number; `active` counts the workers
// that may still touch the job, and the caller leaves only when it is zero.
struct ThreadPool::Shared {
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable done;
  uint64_t generation = 0;  // guarded by mutex, mirrored below for the spin
  std::atomic<uint64_t> published{0};
  std::atomic<size_t> active{0};
  std::atomic<size_t> next_item{0};
  size_t num_items = 0;
  const void* body = nullptr;
  Invoke invoke = nullptr;
  bool stop = false;
  std::vector<std::thread> workers;

  void take_items(size_t worker) {
    for (;;) {
      const size_t item = next_item.fetch_add(1, std::memory_order_relaxed);
      if (item >= num_items) return;
      invoke(body, item, worker);
    }
  }

  // Spins briefly, because the next parallel_for usually follows within microseconds.
  void await_job(uint64_t seen) {
    constexpr int kSpins = 2000;
    for (int spin = 0; spin < kSpins; ++spin) {
      if (published.load(std::memory_order_acquire) != seen) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return generation != seen; });
  }

  void work(size_t worker) {
    uint64_t seen = 0;
    for (;;) {
      await_job(seen);
      seen = published.load(std::memory_order_acquire);
      if (stop) return;
      take_items(worker);
      if (active.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard lock(mutex);
        done.notify_one();
      }
    }
  }

  void publish() {
    {
      const std::lock_guard lock(mutex);
      ++generation;
      published.store(generation, std::memory_order_release);
    }
    wake.notify_all();
  }
};

ThreadPool::ThreadPool(size_t num_threads)
    : num_threads_(num_threads), shared_(std::make_unique<Shared>()) {
  EM_CHECK(num_threads >= 1);
  for (size_t worker = 1; worker < num_threads; ++worker) {
    shared_->workers.emplace_back([shared = shared_.get(), worker] { shared->work(worker); });
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop = true;
  shared_->publish();
  for (std::thread& worker : shared_->workers) worker.join();
}

void ThreadPool::run(size_t num_items, const void* body, Invoke invoke) {
  if (num_threads_ == 1 || num_items <= 1) {
    for (size_t item = 0; item < num_items; ++item) invoke(body, item, 0);
    return;
  }
  Shared& job = *shared_;
  job.num_items = num_items;
  job.body = body;
  job.invoke = invoke;
  job.next_item.store(0, std::memory_order_relaxed);
  job.active.store(num_threads_ - 1, std::memory_order_relaxed);
  job.publish();
  job.take_items(0);
  constexpr int kSpins = 2000;
  for (int spin = 0; spin < kSpins; ++spin) {
    if (job.active.load(std::memory_order_acquire) == 0) return;
  }
  std::unique_lock lock(job.mutex);
  job.done.wait(lock, [&] { return job.active.load(std::memory_order_acquire) == 0; });
}

}  // namespace edgemoe
