#include "model/workspace.h"

#include <algorithm>
#include <numeric>

#include "base/units.h"
#include "model/recurrent_state.h"

namespace edgemoe {
namespace {

constexpr uint64_t kAlignment = 64;

void grow(size_t& largest, uint64_t value) {
  largest = std::max(largest, static_cast<size_t>(value));
}

void add_recurrent(const AttentionSpec& attention, WorkspaceSizes& sizes) {
  if (attention.kind == AttentionKind::kShortConvolution) {
    grow(sizes.projected, uint64_t{3} * sizes.width);
    grow(sizes.attended, sizes.width);
  } else if (attention.kind == AttentionKind::kMamba) {
    const uint64_t channels = attention.value_size;
    grow(sizes.projected, 3 * channels + 2 * (attention.rate_rank + uint64_t{attention.key_size}));
    grow(sizes.attended, channels);
    grow(sizes.inner, attention.rate_rank);
  } else {
    const uint64_t values = uint64_t{attention.num_heads} * attention.value_size;
    grow(sizes.projected,
         convolution_channels(attention, sizes.width) + values + uint64_t{4} * attention.num_heads);
    grow(sizes.attended, values);
  }
  grow(sizes.inner, sizes.attended);
}

void add_attention(const AttentionSpec& attention, WorkspaceSizes& sizes) {
  const uint64_t heads = attention.num_heads;
  if (attention.kind == AttentionKind::kNone) return;
  if (is_recurrent(attention.kind)) return add_recurrent(attention, sizes);
  if (attention.kind == AttentionKind::kGrouped) {
    const uint64_t gates =
        attention.gate == AttentionGate::kNone ? 0 : heads * attention.value_size;
    grow(sizes.projected,
         heads * attention.key_size + gates +
             uint64_t{attention.num_kv_heads} * (attention.key_size + attention.value_size));
    grow(sizes.attended, heads * attention.value_size);
  } else {
    const uint64_t query = heads * (attention.content_size + attention.rope.dimensions);
    grow(sizes.projected,
         query + attention.key_size + attention.query_rank + heads * attention.content_size);
    grow(sizes.absorbed, heads * attention.key_size);
    grow(sizes.context, heads * attention.latent_size);
    grow(sizes.attended, heads * attention.head_value_size);
    grow(sizes.inner, attention.query_rank);
    // Per-head products take rows of [heads x batch], each of which is spread on its own.
    grow(sizes.inner,
         heads * spread_code_stride(std::max(attention.content_size, attention.latent_size)));
  }
  grow(sizes.inner, sizes.attended);
}

}  // namespace

WorkspaceSizes workspace_sizes(const ModelSpec& spec) noexcept {
  WorkspaceSizes sizes;
  sizes.width = spec.width;
  sizes.num_experts = spec.router.num_experts;
  sizes.num_used = spec.router.num_used;
  sizes.scaled_inputs = spec.router.weight_before_ffn ? spec.router.num_used : 0;
  for (const LayerSpec& layer : spec.layers) {
    add_attention(layer.attention, sizes);
    add_attention(layer.cross, sizes);
    const FfnSpec& ffn = layer.ffn;
    grow(sizes.expert_input, ffn.experts_have_norm ? spec.width : ffn.narrow_width);
    if (spec.router.reads_block_input || ffn.router_has_norm) sizes.router_input = spec.width;
    grow(sizes.hidden, ffn.kind == FfnKind::kMoe
                           ? uint64_t{sizes.num_used} * ffn.width + ffn.shared_width
                           : ffn.width);
  }
  return sizes;
}

namespace {

// Gives arrays their places; with a null base it only measures.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  float* floats(uint64_t count) {
    float* place = base_ == nullptr ? nullptr : reinterpret_cast<float*>(base_ + end_);
    end_ = align_up(end_ + count * sizeof(float), kAlignment);
    return place;
  }
  uint64_t bytes() const { return end_; }

 private:
  std::byte* base_;
  uint64_t end_ = 0;
};

uint64_t float_bytes(const WorkspaceSizes& sizes, size_t batch) {
  Carver carver(nullptr);
  for (const size_t size :
       {sizes.width, sizes.width, sizes.projected, sizes.absorbed, sizes.attended, sizes.context,
        sizes.width, sizes.num_experts, sizes.num_used * sizes.width, sizes.expert_input,
        sizes.scaled_inputs * sizes.width, size_t{1}}) {
    carver.floats(uint64_t{batch} * size);
  }
  carver.floats(sizes.num_experts);
  carver.floats(Workspace::kLookAheadRows * sizes.width);
  carver.floats(Workspace::kLookAheadRows * sizes.num_experts);
  return carver.bytes();
}

}  // namespace

// Of the networks of a layer: rows, and the places of all its jobs.
uint64_t hidden_buffer_bytes(const WorkspaceSizes& sizes, size_t batch) {
  return hidden_place(batch * sizes.hidden, sizes.num_experts + 2, 1);
}

uint64_t Workspace::bytes(const ModelSpec& spec, size_t batch, size_t num_threads) {
  const WorkspaceSizes sizes = workspace_sizes(spec);
  const uint64_t routing = batch * sizes.num_used * (sizeof(RoutedExpert) + 3 * sizeof(uint32_t)) +
                           (3 * sizes.num_experts) * sizeof(uint32_t) +
                           kLookAheadRows * sizes.num_used * sizeof(RoutedExpert) +
                           ActivationRows::bytes(kLookAheadRows, sizes.width);
  return float_bytes(sizes, batch) + hidden_buffer_bytes(sizes, batch) +
         num_threads * network_scratch_bytes() + (sizes.num_experts + 1) * sizeof(NetworkJob) +
         ActivationRows::bytes(batch, sizes.width) + ActivationRows::bytes(batch, sizes.inner) +
         ActivationRows::bytes(batch * sizes.scaled_inputs, sizes.width) +
         ActivationRows::bytes(batch, sizes.expert_input) +
         ActivationRows::bytes(batch, sizes.router_input) + routing;
}

Workspace::Workspace(const ModelSpec& spec, size_t batch_rows, size_t num_threads)
    : batch(batch_rows),
      sizes(workspace_sizes(spec)),
      routed(batch_rows * sizes.num_used),
      expert_rows(batch_rows * sizes.num_used),
      own_index(batch_rows * sizes.scaled_inputs),
      place_of_routed(batch_rows * sizes.num_used),
      first_of_expert(sizes.num_experts + 1),
      positions(batch_rows),
      width_rows(batch_rows, sizes.width),
      inner_rows(batch_rows, sizes.inner),
      scaled_rows(batch_rows * sizes.scaled_inputs, sizes.width),
      expert_input_rows(batch_rows, sizes.expert_input),
      router_rows(batch_rows, sizes.router_input),
      ahead_routed(kLookAheadRows * sizes.num_used),
      ahead_rows(kLookAheadRows, sizes.width),
      buffer_(float_bytes(sizes, batch_rows)),
      hidden_buffer_(hidden_buffer_bytes(sizes, batch_rows)),
      scratch_(num_threads * network_scratch_bytes()) {
  jobs.reserve(sizes.num_experts + 1);
  hidden = hidden_buffer_.data();
  needed_experts.reserve(sizes.num_experts);
  ahead_experts.reserve(sizes.num_experts);
  std::iota(own_index.begin(), own_index.end(), 0u);
  Carver carver(buffer_.data());
  x = carver.floats(batch * sizes.width);
  normed = carver.floats(batch * sizes.width);
  projected = carver.floats(batch * sizes.projected);
  absorbed = carver.floats(batch * sizes.absorbed);
  attended = carver.floats(batch * sizes.attended);
  context = carver.floats(batch * sizes.context);
  branch = carver.floats(batch * sizes.width);
  router_logits = carver.floats(batch * sizes.num_experts);
  expert_out = carver.floats(batch * sizes.num_used * sizes.width);
  expert_input = carver.floats(batch * sizes.expert_input);
  scaled_input = carver.floats(batch * sizes.scaled_inputs * sizes.width);
  shared_weights = carver.floats(batch);
  selection = carver.floats(sizes.num_experts);
  ahead_normed = carver.floats(kLookAheadRows * sizes.width);
  ahead_logits = carver.floats(kLookAheadRows * sizes.num_experts);
}

float* Workspace::network_scratch(size_t worker) noexcept {
  return reinterpret_cast<float*>(scratch_.data() + worker * network_scratch_bytes());
}

}  // namespace edgemoe
