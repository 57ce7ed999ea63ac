// What steps did with experts, and where their time went, for a caller who asked for it. Memory is
// taken once: events that no longer fit are dropped, and the trace says that it is incomplete. The
// caller takes the events after each step and clears the trace. One owner thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "experts/expert_store.h"

namespace edgemoe {

// One expert of one row.
struct RoutingEvent {
  uint64_t bytes_read = 0;  // weights read for it; 0 when resident or read for another row
  uint32_t position = 0;    // of the row's token in its sequence
  uint32_t expert = 0;
  float weight = 0;
  uint16_t layer = 0;
  uint16_t rank = 0;
  uint8_t resident = 0;  // 1 when the expert was resident as the layer asked for it
};

// One layer of one step. The times add up: alone + overlap + stall is what the layer took.
struct LayerEvent {
  uint64_t start_ns = 0;    // since the trace was made
  uint64_t alone_ns = 0;    // computing, and the layer waits for no expert
  uint64_t overlap_ns = 0;  // computing while experts of the layer are being read
  uint64_t stall_ns = 0;    // waiting for storage
  uint64_t bytes_read = 0;  // that arrived meanwhile, aligned windows included
  uint32_t position = 0;    // of the step's first row
  uint32_t rows = 0;
  uint32_t layer = 0;
  uint32_t demands = 0;
  uint32_t hits = 0;
};

class EventTrace {
 public:
  struct Capacity {
    size_t routing = 0;
    size_t layers = 0;
  };
  static uint64_t bytes(const Capacity& capacity) noexcept;
  explicit EventTrace(const Capacity& capacity);

  void add_routing(const RoutingEvent& event) noexcept;
  // The layer that runs from here to end_layer. `store` is null for a dense model.
  void begin_layer(uint32_t layer, uint32_t position, uint32_t rows,
                   const ExpertStore* store) noexcept;
  void end_layer(const ExpertStore* store) noexcept;

  std::span<const RoutingEvent> routing() const noexcept { return routing_; }
  std::span<const LayerEvent> layers() const noexcept { return layers_; }
  bool complete() const noexcept { return complete_; }  // nothing was dropped since clear()
  void clear() noexcept;

 private:
  friend class OverlapScope;
  using Clock = std::chrono::steady_clock;

  Capacity capacity_;
  std::vector<RoutingEvent> routing_;
  std::vector<LayerEvent> layers_;
  bool complete_ = true;
  Clock::time_point made_;
  // The running layer, and the counters as it began.
  LayerEvent layer_;
  ExpertStats before_;
};

// While it lives, the running layer computes and experts that it needs are being read. Does nothing
// without a trace.
class OverlapScope {
 public:
  OverlapScope(EventTrace* trace, bool is_reading) noexcept;
  ~OverlapScope();
  OverlapScope(const OverlapScope&) = delete;

 private:
  EventTrace* trace_;
  EventTrace::Clock::time_point start_;
};

}  // namespace edgemoe
