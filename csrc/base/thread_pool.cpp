#include "base/thread_pool.h"

#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/start_threads.h"

namespace edgemoe {
namespace {

// About 30 us: the next parallel_for usually follows within microseconds, and waking a sleeper
// takes longer than that. Waiting for storage takes longer still, so then threads sleep.
constexpr int kSpins = 2000;

void pause_briefly() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns when `value` is no longer `old`: after a short spin it sleeps.
void await_change(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

// One job at a time. A worker joins a job by its generation number; `active` counts the workers
// that may still touch the job, and the caller leaves only when it is zero. The job's fields are
// written before the generation is raised and read after it was seen.
struct ThreadPool::Shared {
  std::atomic<uint32_t> generation{0};
  std::atomic<uint32_t> active{0};
  alignas(64) std::atomic<size_t> next_item{0};
  alignas(64) size_t num_items = 0;
  const void* body = nullptr;
  Invoke invoke = nullptr;
  bool stop = false;
  std::vector<std::thread> workers;

  // False when none are left.
  bool take_item(size_t worker) {
    const size_t item = next_item.fetch_add(1, std::memory_order_relaxed);
    if (item >= num_items) return false;
    invoke(body, item, worker);
    return true;
  }

  void work(size_t worker) {
    for (uint32_t seen = 0;;) {
      await_change(generation, seen);
      seen = generation.load(std::memory_order_acquire);
      if (stop) return;
      while (take_item(worker)) {
      }
      if (active.fetch_sub(1, std::memory_order_acq_rel) == 1) active.notify_one();
    }
  }

  void publish() {
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
  }

  void end() {
    stop = true;
    publish();
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(size_t num_threads)
    : num_threads_(num_threads), shared_(std::make_unique<Shared>()) {
  EM_CHECK(num_threads >= 1);
  const int error = start_threads(shared_->workers, num_threads - 1,
                                  [shared = shared_.get()](size_t i) { shared->work(i + 1); });
  if (error == 0) return;
  shared_->end();
  throw Error(ErrorCode::kArgument, describe_refused_thread(error));
}

ThreadPool::~ThreadPool() {
  shared_->end();
}

void ThreadPool::set_between_items(std::function<void()> between) {
  between_items_ = std::move(between);
}

void ThreadPool::between_items() const noexcept {
  if (between_items_) between_items_();
}

void ThreadPool::run(size_t num_items, const void* body, Invoke invoke) {
  if (num_threads_ == 1 || num_items <= 1) {
    for (size_t item = 0; item < num_items; ++item) {
      invoke(body, item, 0);
      between_items();
    }
    return;
  }
  Shared& job = *shared_;
  job.num_items = num_items;
  job.body = body;
  job.invoke = invoke;
  job.next_item.store(0, std::memory_order_relaxed);
  job.active.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
  job.publish();
  while (job.take_item(0)) between_items();
  for (uint32_t left = job.active.load(std::memory_order_acquire); left != 0;
       left = job.active.load(std::memory_order_acquire)) {
    await_change(job.active, left);
  }
}

}  // namespace edgemoe
