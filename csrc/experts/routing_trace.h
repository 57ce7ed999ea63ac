// Recorded routing: which experts each forward pass asked for, layer by layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace edgemoe {

enum class TracePhase : uint8_t { kPrefill, kDecode };

inline constexpr uint32_t kUnknownTokenId = 0xffffffff;

// One expert that one token used in one layer. Rows come in the order of the run.
struct TraceRow {
  uint32_t turn = 0;
  TracePhase phase = TracePhase::kPrefill;
  uint32_t step = 0;  // the token's number in its turn and phase
  uint32_t layer = 0;
  uint32_t expert = 0;
  uint32_t token_id = kUnknownTokenId;
};

class RoutingTrace {
 public:
  // The experts of one token in one layer.
  struct Group {
    uint32_t token = 0;  // numbered within the pass
    uint32_t token_id = kUnknownTokenId;
    uint32_t layer = 0;
    std::span<const uint32_t> experts;
  };
  // What a layer asks the cache for: the distinct experts of all tokens of the pass, rising.
  struct Request {
    uint32_t layer = 0;
    std::span<const uint32_t> experts;
    std::span<const float> shares;  // of the tokens, 0 to 1
  };
  // One forward pass: a decoded token, or a batch of the prompt.
  struct Pass {
    TracePhase phase = TracePhase::kPrefill;
    uint32_t turn = 0;
    std::span<const Group> groups;  // as recorded
    std::span<const Request> requests;
  };

  // A pass ends where the layer falls, the turn or phase changes, or a decoded token follows.
  // Errors: kArgument naming the row for a layer or expert outside the model.
  RoutingTrace(uint32_t num_layers, uint32_t num_experts, std::span<const TraceRow> rows);
  RoutingTrace(const RoutingTrace&) = delete;
  RoutingTrace& operator=(const RoutingTrace&) = delete;

  uint32_t num_layers() const noexcept { return num_layers_; }
  uint32_t num_experts() const noexcept { return num_experts_; }
  std::span<const Pass> passes() const noexcept { return passes_; }

 private:
  void add_groups(std::span<const TraceRow> rows, size_t first_row);
  void add_requests(size_t first_group);

  uint32_t num_layers_;
  uint32_t num_experts_;
  // What the spans of the others lead to; their sizes are known before, so they never move.
  std::vector<uint32_t> group_experts_;
  std::vector<uint32_t> request_experts_;
  std::vector<float> request_shares_;
  std::vector<Group> groups_;
  std::vector<Request> requests_;
  std::vector<Pass> passes_;
  std::vector<uint32_t> counts_;  // scratch: tokens by expert, zeros in between
};

}  // namespace edgemoe
