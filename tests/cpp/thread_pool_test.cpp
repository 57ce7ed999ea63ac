#include "base/thread_pool.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "few_threads.h"
#include "test.h"

namespace edgemoe {
namespace {

TEST("every item runs exactly once, whatever the number of threads") {
  for (const size_t threads : {1u, 2u, 3u, 8u}) {
    ThreadPool pool(threads);
    for (const size_t items : {0u, 1u, 2u, 7u, 1000u}) {
      std::vector<std::atomic<int>> runs(items);
      pool.parallel_for(items, [&](size_t item, size_t) { ++runs[item]; });
      pool.parallel_runs(items, [&](size_t item, size_t) { ++runs[item]; });
      for (const auto& count : runs) CHECK_EQUAL(count.load(), 2);
    }
  }
}

TEST("a thread takes the items of its run from the front, those of others from the back") {
  constexpr size_t kThreads = 3;
  constexpr size_t kItems = 1000;
  const auto first_of = [](size_t run) { return kItems * run / kThreads; };
  const auto run_of = [&](size_t item) { return item >= first_of(2) ? 2u : item >= first_of(1); };
  ThreadPool pool(kThreads);
  std::vector<std::vector<size_t>> taken(kThreads);
  pool.parallel_runs(kItems, [&](size_t item, size_t worker) { taken[worker].push_back(item); });
  for (size_t worker = 0; worker < kThreads; ++worker) {
    size_t next_own = first_of(worker);
    std::vector<size_t> last_of_run(kThreads, kItems);
    for (const size_t item : taken[worker]) {
      if (run_of(item) == worker) {
        CHECK_EQUAL(item, next_own++);
      } else {
        CHECK(item < last_of_run[run_of(item)]);
        last_of_run[run_of(item)] = item;
      }
    }
  }
}

TEST("worker numbers are unique among calls that run together") {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<bool> shared{false};
  const auto body = [&](size_t, size_t worker) {
    if (busy[worker].fetch_add(1) != 0) shared = true;
    busy[worker].fetch_sub(1);
  };
  pool.parallel_for(2000, body);
  pool.parallel_runs(2000, body);
  CHECK(!shared);
}

TEST("results of a call are visible after it, many times over") {
  ThreadPool pool(3);
  std::vector<uint64_t> squares(64);
  for (uint64_t round = 1; round <= 2000; ++round) {
    const auto square = [&](size_t item, size_t) { squares[item] = item * round; };
    if (round % 2 == 0) {
      pool.parallel_for(squares.size(), square);
    } else {
      pool.parallel_runs(squares.size(), square);
    }
    uint64_t total = 0;
    for (const uint64_t value : squares) total += value;
    REQUIRE(total == round * (64 * 63 / 2));
  }
}

TEST("threads that the system refuses are an error that says what to do") {
  std::string message;
  {
    const test::FewThreads limited;
    message = ERROR_MESSAGE(ErrorCode::kArgument, ThreadPool(4));
    ThreadPool(2).parallel_for(2, [](size_t, size_t) {});
  }
  CHECK(message.find("--threads") != std::string::npos);
  CHECK(message.find("ulimit -u, pids.max") != std::string::npos);
  CHECK_EQUAL(ThreadPool(4).num_threads(), 4u);
}

TEST("the calling thread looks up between its items") {
  for (const size_t threads : {1u, 3u}) {
    ThreadPool pool(threads);
    const auto caller = std::this_thread::get_id();
    size_t calls = 0;  // by one thread only
    bool elsewhere = false;
    pool.set_between_items([&] {
      ++calls;
      elsewhere |= std::this_thread::get_id() != caller;
    });
    std::atomic<size_t> of_caller{0};
    pool.parallel_for(500, [&](size_t, size_t worker) { of_caller += worker == 0; });
    CHECK_EQUAL(calls, of_caller.load());
    CHECK(!elsewhere);
  }
}

}  // namespace
}  // namespace edgemoe
