// A process in which one thread can be started and no second one: stacks are large, and addresses
// are limited to what one of them takes. Holds for root too.
#pragma once

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "base/units.h"

namespace edgemoe::test {

class FewThreads {
 public:
  FewThreads() {
    constexpr size_t kStackBytes = 512 * kMiB;
    pthread_getattr_default_np(&attributes_before_);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
    getrlimit(RLIMIT_AS, &limit_before_);
    uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = limit_before_;
    limit.rlim_cur = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + kStackBytes * 3 / 2;
    setrlimit(RLIMIT_AS, &limit);
  }
  ~FewThreads() {
    setrlimit(RLIMIT_AS, &limit_before_);
    pthread_setattr_default_np(&attributes_before_);
    pthread_attr_destroy(&attributes_before_);
  }
  FewThreads(const FewThreads&) = delete;

 private:
  pthread_attr_t attributes_before_;
  rlimit limit_before_;
};

}  // namespace edgemoe::test
