// All memory of one step besides weights and KV cache, sized once from the spec and the batch.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "experts/expert_store.h"
#include "model/activation_rows.h"
#include "model/gated_network.h"
#include "model/model_spec.h"
#include "model/router.h"

namespace edgemoe {

// Largest sizes over all layers, in elements.
struct WorkspaceSizes {
  size_t width = 0;
  size_t projected = 0;  // queries, keys and values of a row; kLatent: queries and latent row
  size_t absorbed = 0;   // kLatent: queries against the cache, of all heads
  size_t attended = 0;   // attention result before the output projection
  size_t context = 0;    // kLatent: result of attention before decompression
  size_t hidden = 0;     // of the feed-forward networks that a row goes through
  size_t inner = 0;      // widest row that is multiplied besides `width`
  size_t num_experts = 0;
  size_t num_used = 0;
  size_t scaled_inputs = 0;  // expert inputs of a row that carry their routing weight
  size_t expert_input = 0;   // of experts with a norm of their own, or narrow ones
  size_t router_input = 0;   // of routers that read something else than the experts
};
WorkspaceSizes workspace_sizes(const ModelSpec& spec) noexcept;

class Workspace {
 public:
  static uint64_t bytes(const ModelSpec& spec, size_t batch, size_t num_threads);
  Workspace(const ModelSpec& spec, size_t batch, size_t num_threads);

  float* network_scratch(size_t worker) noexcept;  // network_scratch_bytes() each

  size_t batch;
  WorkspaceSizes sizes;
  // [batch][...] floats
  float* x;       // residual stream, width
  float* normed;  // width
  float* projected;
  float* absorbed;
  float* attended;
  float* context;
  float* branch;                      // what attention or FFN adds to the stream, width
  float* router_logits;               // num_experts
  float* expert_out;                  // [batch * num_used][width]
  float* expert_input;                // where experts do not read what the shared one reads
  float* scaled_input;                // [batch * scaled_inputs][width], in the order of expert_rows
  float* shared_weights;              // 1
  float* selection;                   // [num_experts], one row: routing is not threaded
  std::vector<RoutedExpert> routed;   // [batch * num_used]
  std::vector<uint32_t> expert_rows;  // rows of each expert, experts one after another
  std::vector<uint32_t> own_index;    // 0, 1, 2, ...: the rows of scaled_input
  std::vector<uint32_t> place_of_routed;  // index into expert_rows and expert_out
  std::vector<uint32_t> first_of_expert;  // [num_experts + 1]
  std::vector<ExpertDemand> needed_experts;
  std::vector<NetworkJob> jobs;     // capacity: every expert and the shared one
  std::byte* hidden;                // between up and down of all networks of a layer
  std::vector<uint32_t> positions;  // of the step's rows
  ActivationRows width_rows;        // rows of `width` elements
  ActivationRows inner_rows;        // rows of other sizes
  ActivationRows scaled_rows;       // of scaled_input
  ActivationRows expert_input_rows;
  ActivationRows router_rows;  // of `branch`, while it is free

  // Of look_ahead.h, for kLookAheadRows rows.
  static constexpr size_t kLookAheadRows = 4;
  float* ahead_normed;  // width
  float* ahead_logits;  // num_experts
  std::vector<RoutedExpert> ahead_routed;
  std::vector<uint32_t> ahead_experts;  // capacity: num_experts
  ActivationRows ahead_rows;            // of ahead_normed

 private:
  AlignedBuffer buffer_;
  AlignedBuffer hidden_buffer_;
  AlignedBuffer scratch_;
};

}  // namespace edgemoe
