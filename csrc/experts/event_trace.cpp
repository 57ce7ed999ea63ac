#include "experts/event_trace.h"

#include <algorithm>

namespace edgemoe {
namespace {

template <class Duration>
uint64_t nanoseconds(Duration duration) noexcept {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count());
}

ExpertStats stats_of(const ExpertStore* store) noexcept {
  return store == nullptr ? ExpertStats() : store->stats();
}

}  // namespace

uint64_t EventTrace::bytes(const Capacity& capacity) noexcept {
  return uint64_t{capacity.routing} * sizeof(RoutingEvent) +
         uint64_t{capacity.layers} * sizeof(LayerEvent);
}

EventTrace::EventTrace(const Capacity& capacity) : capacity_(capacity), made_(Clock::now()) {
  routing_.reserve(capacity.routing);
  layers_.reserve(capacity.layers);
}

void EventTrace::add_routing(const RoutingEvent& event) noexcept {
  if (routing_.size() == capacity_.routing) {
    complete_ = false;
  } else {
    routing_.push_back(event);
  }
}

void EventTrace::begin_layer(uint32_t layer, uint32_t position, uint32_t rows,
                             const ExpertStore* store) noexcept {
  layer_ = LayerEvent();
  layer_.layer = layer;
  layer_.position = position;
  layer_.rows = rows;
  before_ = stats_of(store);
  layer_.start_ns = nanoseconds(Clock::now() - made_);
}

void EventTrace::end_layer(const ExpertStore* store) noexcept {
  const uint64_t elapsed_ns = nanoseconds(Clock::now() - made_) - layer_.start_ns;
  const ExpertStats after = stats_of(store);
  layer_.stall_ns = std::min(after.stall_ns - before_.stall_ns, elapsed_ns);
  const uint64_t computing_ns = elapsed_ns - layer_.stall_ns;
  layer_.overlap_ns = std::min(layer_.overlap_ns, computing_ns);
  layer_.alone_ns = computing_ns - layer_.overlap_ns;
  layer_.bytes_read = after.bytes_read - before_.bytes_read;
  layer_.demands = static_cast<uint32_t>(after.demands - before_.demands);
  layer_.hits = static_cast<uint32_t>(after.hits - before_.hits);
  if (layers_.size() == capacity_.layers) {
    complete_ = false;
  } else {
    layers_.push_back(layer_);
  }
}

void EventTrace::clear() noexcept {
  routing_.clear();
  layers_.clear();
  complete_ = true;
}

OverlapScope::OverlapScope(EventTrace* trace, bool is_reading) noexcept
    : trace_(is_reading ? trace : nullptr) {
  if (trace_ != nullptr) start_ = EventTrace::Clock::now();
}

OverlapScope::~OverlapScope() {
  if (trace_ != nullptr) {
    trace_->layer_.overlap_ns += nanoseconds(EventTrace::Clock::now() - start_);
  }
}

}  // namespace edgemoe
