#include "experts/predictor_recall.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "experts/token_table.h"
#include "experts/transitions.h"

namespace edgemoe {
namespace {

constexpr uint32_t kTableTokens = 1 << 15;

using Experts = std::span<const uint32_t>;

uint64_t num_found(Experts used, std::span<const PredictedExpert> named) {
  return static_cast<uint64_t>(std::count_if(named.begin(), named.end(), [&](auto one) {
    return std::find(used.begin(), used.end(), one.expert) != used.end();
  }));
}

uint32_t most_experts(const RoutingTrace& trace) {
  size_t most = 1;
  for (const RoutingTrace::Pass& pass : trace.passes()) {
    for (const RoutingTrace::Group& group : pass.groups)
      most = std::max(most, group.experts.size());
  }
  return static_cast<uint32_t>(most);
}

// What a token of the running pass used in the last two layers with experts.
struct Path {
  Experts previous;
  Experts before_previous;
};

class RecallCounter {
 public:
  explicit RecallCounter(const RoutingTrace& trace)
      : transitions_(trace.num_layers(), trace.num_experts()),
        table_(trace.num_layers(), most_experts(trace), kTableTokens) {}

  void run(const RoutingTrace::Pass& pass, const ShouldStop& should_stop) {
    paths_.clear();
    for (const RoutingTrace::Group& group : pass.groups) {
      throw_if_stopped(should_stop);
      if (group.token >= paths_.size()) paths_.resize(group.token + 1);
      Path& path = paths_[group.token];
      if (pass.phase == TracePhase::kDecode) score(group, path);
      transitions_.learn(group.layer, group.experts, path.previous, path.before_previous);
      if (group.token_id != kUnknownTokenId) {
        table_.learn(group.token_id, group.layer, group.experts);
      }
      path = {group.experts, path.previous};
    }
  }

  const PredictorRecall& recall() const noexcept { return recall_; }

 private:
  void score(const RoutingTrace::Group& group, const Path& path) {
    const auto count = static_cast<uint32_t>(group.experts.size());
    if (!path.previous.empty()) {
      const auto found = [&](Experts previous, Experts before_previous, uint32_t most) {
        return num_found(group.experts,
                         transitions_.predict(group.layer, previous, before_previous, most));
      };
      recall_.wanted += count;
      recall_.popular += found({}, {}, count);
      recall_.transitions += found(path.previous, path.before_previous, count);
      recall_.transitions_twice += found(path.previous, path.before_previous, 2 * count);
    }
    if (group.token_id == kUnknownTokenId) return;
    recall_.token_wanted += count;
    for (const uint32_t expert : table_.predict(group.token_id, group.layer)) {
      const bool used =
          std::find(group.experts.begin(), group.experts.end(), expert) != group.experts.end();
      recall_.token_table += used ? 1 : 0;
    }
  }

  Transitions transitions_;
  TokenTable table_;
  std::vector<Path> paths_;  // by token of the pass
  PredictorRecall recall_;
};

}  // namespace

PredictorRecall predictor_recall(const RoutingTrace& trace, const ShouldStop& should_stop) {
  RecallCounter counter(trace);
  for (const RoutingTrace::Pass& pass : trace.passes()) counter.run(pass, should_stop);
  return counter.recall();
}

}  // namespace edgemoe
