#include "experts/event_trace.h"

#include <thread>

#include "test.h"

namespace edgemoe {
namespace {

TEST("a full trace drops events and says so until it is cleared") {
  EventTrace trace({2, 1});
  for (uint32_t expert = 0; expert < 3; ++expert) {
    CHECK(trace.complete() || expert > 2);
    RoutingEvent event;
    event.expert = expert;
    trace.add_routing(event);
  }
  CHECK(!trace.complete());
  REQUIRE(trace.routing().size() == 2);
  CHECK_EQUAL(trace.routing()[1].expert, 1u);
  trace.clear();
  CHECK(trace.complete());
  CHECK(trace.routing().empty());
  for (uint32_t layer = 0; layer < 2; ++layer) {
    CHECK(trace.complete());
    trace.begin_layer(layer, 0, 1, nullptr);
    trace.end_layer(nullptr);
  }
  CHECK(!trace.complete());
  CHECK_EQUAL(trace.layers().size(), 1u);
}

TEST("the parts of a layer's time add up; overlap counts only while experts are read") {
  EventTrace trace({0, 2});
  const auto nap = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  for (const bool is_reading : {false, true}) {
    trace.begin_layer(3, 10, 4, nullptr);
    {
      const OverlapScope overlap(&trace, is_reading);
      nap();
    }
    trace.end_layer(nullptr);
  }
  REQUIRE(trace.layers().size() == 2);
  const LayerEvent& resident = trace.layers()[0];
  const LayerEvent& streamed = trace.layers()[1];
  CHECK_EQUAL(resident.layer, 3u);
  CHECK_EQUAL(resident.position, 10u);
  CHECK_EQUAL(resident.rows, 4u);
  CHECK_EQUAL(resident.overlap_ns, 0u);
  CHECK(resident.alone_ns >= 2'000'000);
  CHECK(streamed.overlap_ns >= 2'000'000);
  CHECK_EQUAL(resident.stall_ns + streamed.stall_ns, 0u);
  CHECK(streamed.start_ns >= resident.start_ns + resident.alone_ns);
}

TEST("nothing happens without a trace") {
  const OverlapScope overlap(nullptr, true);
}

TEST("the bytes of a trace are those of its events") {
  CHECK_EQUAL(EventTrace::bytes({10, 3}), 10 * sizeof(RoutingEvent) + 3 * sizeof(LayerEvent));
}

}  // namespace
}  // namespace edgemoe
