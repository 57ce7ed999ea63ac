// Fixed workers and one operation in two orders, parallel_for and parallel_runs. The calling thread
// takes part, so a pool of one thread has no worker at all. Workers sleep between calls after a
// short spin.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>

namespace edgemoe {

class ThreadPool {
 public:
  // Requires: num_threads >= 1. Errors: kArgument when the system refuses so many threads.
  explicit ThreadPool(size_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t num_threads() const noexcept { return num_threads_; }

  // Called by the calling thread of an operation after each of its items: for what must not wait
  // until all items are done. Empty: nothing. Requires: `between` is quick and does not throw, and
  // no operation runs.
  void set_between_items(std::function<void()> between);

  // Calls body(item, worker) for every item in [0, num_items), each once, the first ones first;
  // worker < num_threads() is unique among the calls that run at the same time. Returns when all
  // are done. Requires: called by one thread at a time; body calls no operation of the pool and
  // does not throw. Bodies write disjoint results, so the outcome does not depend on the schedule.
  template <class Body>
  void parallel_for(size_t num_items, const Body& body) {
    run(Order::kFirstFirst, num_items, &body, invoke_body<Body>);
  }

  // The same for items that lie side by side in memory: a thread takes neighbours one after another
  // from a run of its own, so that it reads one stream; then it takes over the ends of others'
  // runs. Requires also: num_items < 2^32.
  template <class Body>
  void parallel_runs(size_t num_items, const Body& body) {
    run(Order::kRuns, num_items, &body, invoke_body<Body>);
  }

 private:
  enum class Order { kFirstFirst, kRuns };
  using Invoke = void (*)(const void* body, size_t item, size_t worker);
  template <class Body>
  static void invoke_body(const void* body, size_t item, size_t worker) {
    (*static_cast<const Body*>(body))(item, worker);
  }
  void between_items() const noexcept;
  void run(Order order, size_t num_items, const void* body, Invoke invoke);

  struct Shared;
  size_t num_threads_;
  std::unique_ptr<Shared> shared_;
  std::function<void()> between_items_;
};

}  // namespace edgemoe
