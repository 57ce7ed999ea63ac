#include "model/router.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/dispatch.h"
#include "test.h"

namespace edgemoe {
namespace {

std::vector<RoutedExpert> routed(const RouterSpec& spec, std::vector<float> logits,
                                 const float* bias = nullptr) {
  std::vector<float> selection(logits.size());
  std::vector<RoutedExpert> chosen(spec.num_used);
  route(spec, kernels::table_by_name("scalar"), logits, bias, selection, chosen);
  return chosen;
}

RouterSpec router(uint32_t num_experts, uint32_t num_used) {
  RouterSpec spec;
  spec.num_experts = num_experts;
  spec.num_used = num_used;
  return spec;
}

bool near(float a, double b) {
  return std::abs(static_cast<double>(a) - b) < 1e-6;
}

TEST("softmax routing takes the best experts in falling order of weight") {
  const auto chosen = routed(router(4, 2), {0.0f, 2.0f, 1.0f, -1.0f});
  const double sum = 1 + std::exp(2.0) + std::exp(1.0) + std::exp(-1.0);
  CHECK_EQUAL(chosen[0].expert, 1u);
  CHECK_EQUAL(chosen[1].expert, 2u);
  CHECK(near(chosen[0].weight, std::exp(2.0) / sum));
  CHECK(near(chosen[1].weight, std::exp(1.0) / sum));
}

TEST("renormalised weights add up to the weight scale") {
  RouterSpec spec = router(4, 2);
  spec.renormalise = true;
  spec.weight_scale = 2.5f;
  const auto chosen = routed(spec, {0.0f, 2.0f, 1.0f, -1.0f});
  CHECK(near(chosen[0].weight + chosen[1].weight, 2.5));
}

TEST("equal logits go to the lower expert") {
  const auto chosen = routed(router(5, 3), {1.0f, 1.0f, 1.0f, 1.0f, 1.0f});
  for (uint32_t rank = 0; rank < 3; ++rank) CHECK_EQUAL(chosen[rank].expert, rank);
}

TEST("a selection bias moves the choice and leaves the weight") {
  RouterSpec spec = router(3, 1);
  spec.score = RouterScore::kSigmoid;
  const float bias[] = {0.0f, 0.0f, 10.0f};
  const auto chosen = routed(spec, {3.0f, 2.0f, 0.0f}, bias);
  CHECK_EQUAL(chosen[0].expert, 2u);
  CHECK(near(chosen[0].weight, 0.5));
}

TEST("experts outside the best groups are not chosen") {
  RouterSpec spec = router(6, 2);
  spec.score = RouterScore::kSigmoid;
  spec.num_groups = 3;
  spec.num_groups_used = 1;
  // Group 1 holds the single best expert, group 2 the best pair.
  const auto chosen = routed(spec, {-5.0f, -5.0f, 3.0f, -5.0f, 2.0f, 2.5f});
  CHECK_EQUAL(chosen[0].expert, 5u);
  CHECK_EQUAL(chosen[1].expert, 4u);
}

TEST("softmax over the chosen logits ignores the others") {
  RouterSpec spec = router(4, 2);
  spec.score = RouterScore::kSoftmaxTopK;
  const auto chosen = routed(spec, {0.0f, 2.0f, 1.0f, 1.5f});
  CHECK_EQUAL(chosen[1].expert, 3u);
  CHECK(near(chosen[0].weight, 1.0 / (1.0 + std::exp(-0.5))));
  CHECK(near(chosen[0].weight + chosen[1].weight, 1.0));
}

TEST("NaN logits choose distinct experts and lose to every number") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  RouterSpec spec = router(4, 3);
  spec.score = RouterScore::kSoftmaxTopK;
  const auto chosen = routed(spec, {nan, nan, 1.0f, nan});
  CHECK_EQUAL(chosen[0].expert, 2u);
  CHECK(chosen[1].expert != chosen[2].expert);
  CHECK(chosen[1].expert != 2u && chosen[2].expert != 2u);
}

TEST("sqrt(softplus) scores follow their definition") {
  RouterSpec spec = router(2, 2);
  spec.score = RouterScore::kSqrtSoftplus;
  const auto chosen = routed(spec, {1.0f, -1000.0f});
  CHECK(near(chosen[0].weight, std::sqrt(std::log1p(std::exp(1.0)))));
  CHECK(near(chosen[1].weight, 0.0));
}

}  // namespace
}  // namespace edgemoe
