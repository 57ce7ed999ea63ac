// Gated feed-forward networks, down(activation(gate x) * up x), any number of them as one list of
// work: items are (network, block of rows), taken by whichever thread is free, and the threads meet
// twice, however many experts there are. Gate, up, activation and the rounding of what down reads
// are one item; nothing but that rounded row leaves it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/activation_rows.h"
#include "weights/matrix.h"

namespace edgemoe {

class Regrouper;
struct StepContext;

struct GatedNetwork {
  MatrixView gate, up, down;  // without a gate, up takes its place too
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;
};

// A network and the rows that it computes.
struct NetworkJob {
  GatedNetwork network;
  // Of a network whose matrices arrive one after another, a job each for the part that is there:
  // the rows between gate, up and down stay in `hidden` from the first to the second.
  bool computes_hidden = true;
  bool computes_down = true;
  ActivationRows* x = nullptr;
  const uint32_t* token_index = nullptr;  // rows of x; null: the first ones
  size_t num_rows = 0;
  std::byte* hidden = nullptr;  // hidden_bytes(num_rows, network.up.rows), 64-byte aligned
  float* out = nullptr;         // [num_rows][network.down.rows]
  // Not null: the matrices are still in GGUF layout. Whoever multiplies rows brings them into the
  // in-memory layout first, while they are on their way into its cache anyway.
  Regrouper* regrouper = nullptr;

  // Set by compute_networks.
  Activations gate_x, up_x;
  size_t item_rows = 0;
  size_t first_item = 0;
};

// Bytes of the rows between up and down, in any encoding.
uint64_t hidden_bytes(uint64_t num_rows, uint64_t width) noexcept;
// Where the rows of a job begin when jobs of one width, with rows or not, lie one after another:
// `job` of them, with `num_rows` rows, come before.
uint64_t hidden_place(uint64_t num_rows, uint64_t job, uint64_t width) noexcept;
// Bytes that each thread works in.
uint64_t network_scratch_bytes() noexcept;

void compute_networks(const StepContext& step, std::span<NetworkJob> jobs);

}  // namespace edgemoe
