#include "base/thread_pool.h"

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/start_threads.h"

namespace edgemoe {
namespace {

// About 30 us: the next operation usually follows within microseconds, and waking a sleeper
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

// The items that a worker has left, from the first to before the end. Its owner takes from the
// front, everybody else from the back; both bounds change as one number. Orders nothing: what the
// items are was published before, and when they are done is counted elsewhere.
class alignas(64) Run {
 public:
  void set(uint64_t first, uint64_t end) noexcept {
    bounds_.store(first << 32 | end, std::memory_order_relaxed);
  }
  std::optional<size_t> take_first() noexcept {
    return take(uint64_t{1} << 32, [](uint64_t bounds) { return first_of(bounds); });
  }
  std::optional<size_t> take_last() noexcept {
    return take(~uint64_t{0}, [](uint64_t bounds) { return end_of(bounds) - 1; });
  }

 private:
  static uint64_t first_of(uint64_t bounds) noexcept { return bounds >> 32; }
  static uint64_t end_of(uint64_t bounds) noexcept { return bounds & UINT32_MAX; }

  template <class Taken>
  std::optional<size_t> take(uint64_t change, Taken taken) noexcept {
    uint64_t bounds = bounds_.load(std::memory_order_relaxed);
    while (first_of(bounds) < end_of(bounds)) {
      if (bounds_.compare_exchange_weak(bounds, bounds + change, std::memory_order_relaxed)) {
        return taken(bounds);
      }
    }
    return std::nullopt;
  }

  std::atomic<uint64_t> bounds_{0};
};

}  // namespace

// One job at a time. A worker joins a job by its generation number; `active` counts the workers
// that may still touch the job, and the caller leaves only when it is zero. The job's fields are
// written before the generation is raised and read after it was seen.
struct ThreadPool::Shared {
  std::atomic<uint32_t> generation{0};
  std::atomic<uint32_t> active{0};
  alignas(64) std::atomic<size_t> next_item{0};
  std::vector<Run> runs;  // one for each thread
  alignas(64) Order order = Order::kFirstFirst;
  size_t num_items = 0;
  const void* body = nullptr;
  Invoke invoke = nullptr;
  bool stop = false;
  std::vector<std::thread> workers;

  explicit Shared(size_t num_threads) : runs(num_threads) {}

  void set_items(Order wanted, size_t count) noexcept {
    order = wanted;
    num_items = count;
    next_item.store(0, std::memory_order_relaxed);
    if (order != Order::kRuns) return;
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i].set(count * i / runs.size(), count * (i + 1) / runs.size());
    }
  }

  std::optional<size_t> take_item(size_t worker) noexcept {
    if (order == Order::kFirstFirst) {
      const size_t item = next_item.fetch_add(1, std::memory_order_relaxed);
      return item < num_items ? std::optional(item) : std::nullopt;
    }
    std::optional<size_t> item = runs[worker].take_first();
    for (size_t i = 1; !item && i < runs.size(); ++i) {
      item = runs[(worker + i) % runs.size()].take_last();
    }
    return item;
  }

  // False when none are left.
  bool do_item(size_t worker) {
    const std::optional<size_t> item = take_item(worker);
    if (item) invoke(body, *item, worker);
    return item.has_value();
  }

  void work(size_t worker) {
    for (uint32_t seen = 0;;) {
      await_change(generation, seen);
      seen = generation.load(std::memory_order_acquire);
      if (stop) return;
      while (do_item(worker)) {
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
    : num_threads_(num_threads), shared_(std::make_unique<Shared>(num_threads)) {
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

void ThreadPool::run(Order order, size_t num_items, const void* body, Invoke invoke) {
  if (num_threads_ == 1 || num_items <= 1) {
    for (size_t item = 0; item < num_items; ++item) {
      invoke(body, item, 0);
      between_items();
    }
    return;
  }
  Shared& job = *shared_;
  EM_CHECK(order != Order::kRuns || num_items <= UINT32_MAX);
  job.set_items(order, num_items);
  job.body = body;
  job.invoke = invoke;
  job.active.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
  job.publish();
  while (job.do_item(0)) between_items();
  for (uint32_t left = job.active.load(std::memory_order_acquire); left != 0;
       left = job.active.load(std::memory_order_acquire)) {
    await_change(job.active, left);
  }
}

}  // namespace edgemoe
