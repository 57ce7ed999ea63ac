#include "experts/replay.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "experts/expert_cache.h"

namespace edgemoe {
namespace {

// Any size will do: the cache only compares them.
constexpr uint64_t kSlotBytes = 4096;

// The experts of each layer that the trace uses, numbered from 0 in rising order. At each step the
// cache looks at all experts that it knows; one that nobody asks for changes nothing but the time.
class UsedExperts {
 public:
  explicit UsedExperts(const RoutingTrace& trace)
      : num_experts_(trace.num_experts()),
        numbers_(size_t{trace.num_layers()} * trace.num_experts()) {
    for (const RoutingTrace::Pass& pass : trace.passes()) {
      for (const RoutingTrace::Request& request : pass.requests) {
        for (const uint32_t expert : request.experts) numbers_[index(request.layer, expert)] = 1;
      }
    }
    for (uint32_t layer = 0; layer < trace.num_layers(); ++layer) {
      uint32_t used = 0;
      for (uint32_t expert = 0; expert < num_experts_; ++expert) {
        uint32_t& number = numbers_[index(layer, expert)];
        if (number != 0) number = used++;
      }
      most_ = std::max(most_, used);
    }
  }

  uint32_t most() const noexcept { return most_; }  // of a layer
  ExpertId number(uint32_t layer, uint32_t expert) const noexcept {
    return {layer, numbers_[index(layer, expert)]};
  }

 private:
  size_t index(uint32_t layer, uint32_t expert) const noexcept {
    return size_t{layer} * num_experts_ + expert;
  }

  uint32_t num_experts_;
  uint32_t most_ = 1;
  std::vector<uint32_t> numbers_;  // by layer, then expert
};

// One layer's request, as ExpertStore makes it.
class RequestReplay {
 public:
  RequestReplay(ExpertCache& cache, const UsedExperts& used, const RoutingTrace::Request& request,
                ReplayCounts& counts)
      : cache_(cache), used_(used), request_(request) {
    cache_.set_current_layer(request.layer);
    for (size_t i = 0; i < request.experts.size(); ++i) {
      const ExpertId id = used.number(request.layer, request.experts[i]);
      cache_.record_use(id, static_cast<double>(request.shares[i]));
      ++counts.demands;
      if (cache_.state(id) == ExpertCache::State::kResident) {
        ++counts.hits;
        hold(id);
      }
    }
  }

  void load_misses(const ShouldStop& should_stop) {
    std::vector<ExpertId> misses;
    for (const uint32_t expert : request_.experts) {
      const ExpertId id = used_.number(request_.layer, expert);
      if (cache_.state(id) == ExpertCache::State::kAbsent) misses.push_back(id);
    }
    for (const ExpertId id : misses) {
      throw_if_stopped(should_stop);
      if (!cache_.reserve(id, kSlotBytes)) {
        give_up();  // the next wave: those before were used
        EM_CHECK(cache_.reserve(id, kSlotBytes).has_value());
      }
      cache_.finish_load(id);
      held_.push_back(id);
    }
    give_up();
  }

 private:
  void hold(ExpertId id) {
    cache_.pin(id);
    held_.push_back(id);
  }
  void give_up() {
    for (const ExpertId id : held_) cache_.unpin(id);
    held_.clear();
  }

  ExpertCache& cache_;
  const UsedExperts& used_;
  const RoutingTrace::Request& request_;
  std::vector<ExpertId> held_;
};

constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

// For every demand of the trace, in order: the number of the request that needs it next.
std::vector<uint64_t> next_uses(const RoutingTrace& trace) {
  std::vector<uint64_t> seen(size_t{trace.num_layers()} * trace.num_experts(), kNever);
  std::vector<uint64_t> reversed;
  uint64_t number = 0;
  for (const RoutingTrace::Pass& pass : trace.passes()) number += pass.requests.size();
  for (auto pass = trace.passes().rbegin(); pass != trace.passes().rend(); ++pass) {
    for (auto request = pass->requests.rbegin(); request != pass->requests.rend(); ++request) {
      --number;
      for (auto expert = request->experts.rbegin(); expert != request->experts.rend(); ++expert) {
        uint64_t& next = seen[size_t{request->layer} * trace.num_experts() + *expert];
        reversed.push_back(next);
        next = number;
      }
    }
  }
  return {reversed.rbegin(), reversed.rend()};
}

class OptimalCache {
 public:
  OptimalCache(size_t num_experts, uint32_t num_slots)
      : num_slots_(num_slots), place_(num_experts, kAbsent) {
    residents_.reserve(num_slots);
  }

  bool contains(size_t expert) const noexcept { return place_[expert] != kAbsent; }

  // Of a resident: it is needed by request `now` and next by request `next_use`.
  void touch(size_t expert, uint64_t now, uint64_t next_use) noexcept {
    residents_[place_[expert]] = {expert, next_use, now};
  }

  // True when it took another's slot.
  bool load(size_t expert, uint64_t now, uint64_t next_use) {
    const bool full = residents_.size() == num_slots_;
    if (full) {
      const size_t victim = needed_last(now);
      place_[residents_[victim].expert] = kAbsent;
      place_[expert] = victim;
    } else {
      place_[expert] = residents_.size();
      residents_.emplace_back();
    }
    touch(expert, now, next_use);
    return full;
  }

 private:
  struct Resident {
    size_t expert = 0;
    uint64_t next_use = 0;
    uint64_t last_request = 0;
  };
  static constexpr size_t kAbsent = std::numeric_limits<size_t>::max();

  // Those that the running request uses only when there are no others.
  size_t needed_last(uint64_t now) const noexcept {
    size_t best = 0;
    for (size_t i = 1; i < residents_.size(); ++i) {
      const Resident& one = residents_[i];
      const Resident& other = residents_[best];
      const bool idle = one.last_request != now;
      const bool other_idle = other.last_request != now;
      if (idle != other_idle ? idle : one.next_use > other.next_use) best = i;
    }
    return best;
  }

  size_t num_slots_;
  std::vector<size_t> place_;  // by expert: index into residents_
  std::vector<Resident> residents_;
};

}  // namespace

ReplayResult replay(const RoutingTrace& trace, EvictionPolicy policy, uint32_t num_slots,
                    const ShouldStop& should_stop) {
  EM_CHECK(num_slots > 0);
  const UsedExperts used(trace);
  ExpertCache cache(trace.num_layers(), used.most(), num_slots * kSlotBytes, policy);
  ReplayResult result;
  for (const RoutingTrace::Pass& pass : trace.passes()) {
    throw_if_stopped(should_stop);
    cache.begin_step();
    ReplayCounts& counts = result.phases[static_cast<size_t>(pass.phase)];
    for (const RoutingTrace::Request& request : pass.requests) {
      RequestReplay(cache, used, request, counts).load_misses(should_stop);
    }
  }
  result.evictions = cache.evictions();
  return result;
}

ReplayResult replay_optimum(const RoutingTrace& trace, uint32_t num_slots,
                            const ShouldStop& should_stop) {
  EM_CHECK(num_slots > 0);
  const std::vector<uint64_t> next = next_uses(trace);
  OptimalCache cache(size_t{trace.num_layers()} * trace.num_experts(), num_slots);
  ReplayResult result;
  size_t demand = 0;
  uint64_t now = 0;
  std::vector<std::pair<size_t, uint64_t>> misses;  // expert, next use
  for (const RoutingTrace::Pass& pass : trace.passes()) {
    ReplayCounts& counts = result.phases[static_cast<size_t>(pass.phase)];
    throw_if_stopped(should_stop);
    for (const RoutingTrace::Request& request : pass.requests) {
      ++now;  // from 1: a slot that is not filled belongs to no request
      misses.clear();
      for (const uint32_t number : request.experts) {
        const size_t expert = size_t{request.layer} * trace.num_experts() + number;
        ++counts.demands;
        if (cache.contains(expert)) {
          ++counts.hits;
          cache.touch(expert, now, next[demand]);
        } else {
          misses.emplace_back(expert, next[demand]);
        }
        ++demand;
      }
      for (const auto& [expert, next_use] : misses) {
        throw_if_stopped(should_stop);
        if (cache.load(expert, now, next_use)) ++result.evictions;
      }
    }
  }
  return result;
}

}  // namespace edgemoe
