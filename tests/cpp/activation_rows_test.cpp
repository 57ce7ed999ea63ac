// Rounded activations: places that the workspace plans hold what the steps put there.
#include "model/activation_rows.h"

#include <cmath>
#include <vector>

#include "kernels/dispatch.h"
#include "model/workspace.h"
#include "test.h"

namespace edgemoe {
namespace {

ModelSpec latent_spec(uint32_t heads, uint32_t latent) {
  ModelSpec spec;
  spec.num_layers = 1;
  spec.width = 64;
  spec.layers.resize(1);
  AttentionSpec& attention = spec.layers[0].attention;
  attention.kind = AttentionKind::kLatent;
  attention.num_heads = heads;
  attention.num_kv_heads = 1;
  attention.content_size = 32;
  attention.latent_size = latent;
  attention.head_value_size = 32;
  return spec;
}

}  // namespace

TEST("the workspace has room for the rounded rows of every head of latent attention") {
  constexpr size_t kBatch = 5;
  ThreadPool pool(1);
  const kernels::KernelTable& table = kernels::select_table();
  for (const uint32_t heads : {1u, 3u, 16u}) {
    for (const uint32_t latent : {256u, 512u}) {
      ActivationRows rows(kBatch, workspace_sizes(latent_spec(heads, latent)).inner);
      std::vector<float> values(kBatch * heads * latent);
      for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
      rows.set(values.data(), kBatch * heads, latent);
      const Activations fine = rows.as(ActivationEncoding::kQ8Block32, table, pool);
      const Activations coarse = rows.as(ActivationEncoding::kQ8Block256, table, pool);
      // No part of one encoding lies in another: each row is still what it is alone.
      std::vector<int8_t> codes(latent);
      std::vector<float> scales(latent / 32);
      std::vector<int16_t> sums(latent / kSumBlock);
      for (size_t row = 0; row < kBatch * heads; ++row) {
        const float* x = values.data() + row * latent;
        table.quantize_block32(x, latent, codes.data(), scales.data(), sums.data());
        for (size_t i = 0; i < latent; ++i) {
          CHECK_EQUAL(int{fine.codes[row * fine.code_stride + i]}, int{codes[i]});
        }
        for (size_t i = 0; i < scales.size(); ++i) {
          CHECK_EQUAL(fine.scales[row * scales.size() + i], scales[i]);
        }
        table.quantize_block256(x, latent, codes.data(), scales.data(), sums.data());
        for (size_t i = 0; i < sums.size(); ++i) {
          CHECK_EQUAL(coarse.sums[row * sums.size() + i], sums[i]);
        }
      }
    }
  }
}

}  // namespace edgemoe
