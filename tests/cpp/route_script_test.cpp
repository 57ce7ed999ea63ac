#include "model/route_script.h"

#include "test.h"

namespace edgemoe {
namespace {

// Two steps, two layers, three ranks.
RouteScript script() {
  return RouteScript({7, 2, 5, 1, -1, 4,  //
                      0, 9, 3, 6, 6, 6},
                     {2, 2, 3});
}

std::vector<uint32_t> routed(const RouteScript& script, uint32_t position, uint32_t layer,
                             uint32_t num_experts, size_t num_used) {
  std::vector<RoutedExpert> chosen(num_used);
  script.route(position, layer, num_experts, chosen);
  std::vector<uint32_t> experts;
  for (const RoutedExpert& one : chosen) {
    CHECK_EQUAL(one.weight, 1.0f / static_cast<float>(num_used));
    experts.push_back(one.expert);
  }
  return experts;
}

using Experts = std::vector<uint32_t>;

TEST("a script routes as recorded; steps and layers wrap") {
  const RouteScript recorded = script();
  CHECK((routed(recorded, 0, 0, 16, 3) == Experts{7, 2, 5}));
  CHECK((routed(recorded, 1, 0, 16, 3) == Experts{0, 9, 3}));
  CHECK((routed(recorded, 2, 2, 16, 3) == Experts{7, 2, 5}));
}

TEST("a script starts where it is told to") {
  RouteScript recorded = script();
  recorded.start_at(1);
  CHECK((routed(recorded, 0, 0, 16, 3) == Experts{0, 9, 3}));
  CHECK((routed(recorded, 1, 0, 16, 3) == Experts{7, 2, 5}));
}

TEST("ranks beyond those in use are cut, missing ones are the experts that follow") {
  const RouteScript recorded = script();
  CHECK((routed(recorded, 0, 0, 16, 2) == Experts{7, 2}));
  CHECK((routed(recorded, 0, 0, 16, 5) == Experts{7, 2, 5, 6, 8}));
  CHECK((routed(recorded, 0, 1, 16, 3) == Experts{1, 2, 4}));
}

TEST("experts are taken modulo what the model has and stay distinct") {
  const RouteScript recorded = script();
  CHECK((routed(recorded, 0, 0, 4, 3) == Experts{3, 2, 1}));
  CHECK((routed(recorded, 1, 1, 8, 3) == Experts{6, 7, 0}));
  CHECK((routed(recorded, 1, 1, 3, 3) == Experts{0, 1, 2}));
}

TEST("a script whose dimensions do not match is refused") {
  ERROR_MESSAGE(ErrorCode::kArgument, RouteScript({}, {0, 1, 1}));
  ERROR_MESSAGE(ErrorCode::kArgument, RouteScript({1, 2, 3}, {2, 1, 1}));
  ERROR_MESSAGE(ErrorCode::kArgument, RouteScript({1}, {size_t{1} << 63, 2, size_t{1} << 63}));
}

}  // namespace
}  // namespace edgemoe
