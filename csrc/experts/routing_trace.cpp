#include "experts/routing_trace.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace edgemoe {
namespace {

bool same_group(const TraceRow& row, const TraceRow& before) {
  return row.turn == before.turn && row.phase == before.phase && row.step == before.step &&
         row.layer == before.layer;
}

bool same_pass(const TraceRow& row, const TraceRow& before) {
  return row.turn == before.turn && row.phase == before.phase && row.layer >= before.layer &&
         (row.phase == TracePhase::kPrefill || row.step == before.step);
}

}  // namespace

RoutingTrace::RoutingTrace(uint32_t num_layers, uint32_t num_experts,
                           std::span<const TraceRow> rows)
    : num_layers_(num_layers), num_experts_(num_experts), counts_(num_experts) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].layer < num_layers && rows[i].expert < num_experts) continue;
    throw Error(ErrorCode::kArgument, "row " + std::to_string(i) + " of the trace names expert " +
                                          std::to_string(rows[i].expert) + " of layer " +
                                          std::to_string(rows[i].layer) + "; the model has " +
                                          std::to_string(num_layers) + " layers of " +
                                          std::to_string(num_experts) + " experts");
  }
  // Spans lead into these: each holds at most one entry for each row.
  group_experts_.reserve(rows.size());
  request_experts_.reserve(rows.size());
  request_shares_.reserve(rows.size());
  groups_.reserve(rows.size());
  requests_.reserve(rows.size());
  for (size_t first = 0; first < rows.size();) {
    size_t last = first + 1;
    while (last < rows.size() && same_pass(rows[last], rows[last - 1])) ++last;
    const size_t first_group = groups_.size();
    const size_t first_request = requests_.size();
    add_groups(rows.subspan(first, last - first), first);
    add_requests(first_group);
    passes_.push_back({rows[first].phase, rows[first].turn,
                       std::span<const Group>(groups_).subspan(first_group),
                       std::span<const Request>(requests_).subspan(first_request)});
    first = last;
  }
}

void RoutingTrace::add_groups(std::span<const TraceRow> rows, size_t first_row) {
  uint32_t token = 0;
  for (size_t first = 0; first < rows.size();) {
    size_t last = first + 1;
    while (last < rows.size() && same_group(rows[last], rows[first])) ++last;
    for (size_t i = first; i < last; ++i) group_experts_.push_back(rows[i].expert);
    const TraceRow& row = rows[first];
    token = first > 0 && row.layer == rows[first - 1].layer ? token + 1 : 0;
    groups_.push_back(
        {token, row.token_id, row.layer,
         std::span<const uint32_t>(group_experts_).subspan(first_row + first, last - first)});
    first = last;
  }
}

void RoutingTrace::add_requests(size_t first_group) {
  for (size_t first = first_group; first < groups_.size();) {
    size_t last = first;
    const uint32_t layer = groups_[first].layer;
    const size_t first_expert = request_experts_.size();
    for (; last < groups_.size() && groups_[last].layer == layer; ++last) {
      for (const uint32_t expert : groups_[last].experts) {
        if (counts_[expert]++ == 0) request_experts_.push_back(expert);
      }
    }
    const auto tokens = static_cast<float>(last - first);
    std::sort(request_experts_.begin() + static_cast<ptrdiff_t>(first_expert),
              request_experts_.end());
    for (size_t i = first_expert; i < request_experts_.size(); ++i) {
      uint32_t& count = counts_[request_experts_[i]];
      request_shares_.push_back(static_cast<float>(count) / tokens);
      count = 0;
    }
    requests_.push_back({layer, std::span<const uint32_t>(request_experts_).subspan(first_expert),
                         std::span<const float>(request_shares_).subspan(first_expert)});
    first = last;
  }
}

}  // namespace edgemoe
