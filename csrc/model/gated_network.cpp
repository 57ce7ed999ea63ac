#include "model/gated_network.h"

#include <algorithm>

#include "base/units.h"
#include "model/regrouper.h"
#include "model/step.h"

namespace edgemoe {
namespace {

constexpr size_t kAlignment = 64;
// Rows and tokens of an item's gate and up, which stay in the second-level cache. The rows are a
// block of the coarsest encoding, so that an item can round them.
constexpr size_t kMaxItemRows = 256;
constexpr size_t kItemTokens = 64;

// The rows between up and down, in the encoding that down reads.
struct HiddenRows {
  ActivationEncoding encoding = ActivationEncoding::kF32;
  size_t columns = 0;
  size_t code_stride = 0;
  float* values = nullptr;
  int8_t* codes = nullptr;
  float* scales = nullptr;
  int16_t* sums = nullptr;

  Activations view() const { return {encoding, columns, code_stride, values, codes, scales, sums}; }
};

HiddenRows hidden_rows(const NetworkJob& job) {
  HiddenRows rows;
  rows.encoding = traits(job.network.down.type).activations;
  rows.columns = job.network.up.rows;
  rows.code_stride = spread_code_stride(rows.columns);
  if (rows.encoding == ActivationEncoding::kF32) {
    rows.values = reinterpret_cast<float*>(job.hidden);
    return rows;
  }
  const size_t count = job.num_rows * rows.columns;
  const size_t num_scales = count / activation_block(rows.encoding);
  std::byte* place = job.hidden;
  rows.codes = reinterpret_cast<int8_t*>(place);
  place += job.num_rows * rows.code_stride;
  rows.scales = reinterpret_cast<float*>(place);
  place += align_up(num_scales * sizeof(float), kAlignment);
  rows.sums = reinterpret_cast<int16_t*>(place);
  return rows;
}

// Stores columns [first, first + count) of a row.
void store_hidden(const kernels::KernelTable& table, const HiddenRows& to, size_t row, size_t first,
                  std::span<const float> values) {
  const size_t start = row * to.columns + first;
  int8_t* codes = to.codes + row * to.code_stride + first;
  switch (to.encoding) {
    case ActivationEncoding::kF32:
      std::copy(values.begin(), values.end(), to.values + start);
      return;
    case ActivationEncoding::kQ8Block32:
      table.quantize_block32(values.data(), values.size(), codes, to.scales + start / 32,
                             to.sums + start / kSumBlock);
      return;
    case ActivationEncoding::kQ8Block256:
      table.quantize_block256(values.data(), values.size(), codes, to.scales + start / 256,
                              to.sums + start / kSumBlock);
      return;
  }
}

// Some rows of a job's matrices with some of its tokens.
struct Tile {
  size_t row = 0;
  size_t num_rows = 0;
  size_t token = 0;
  size_t num_tokens = 0;
};

// out[token][row] of the tile. `x` has the rows that the job's token_index names.
void multiply_tile(const StepContext& step, const NetworkJob& job, const MatrixView& matrix,
                   const Tile& tile, float* out) {
  const bool up = &matrix == &job.network.up;
  const Activations& x = up ? job.up_x : job.gate_x;
  const float* bias = up ? job.network.up_bias : job.network.gate_bias;
  const MatrixView rows = rows_from(matrix, tile.row);
  Product product;
  product.matrix = &rows;
  product.x = job.token_index == nullptr ? from_row(x, tile.token) : x;
  product.token_index = job.token_index == nullptr ? nullptr : job.token_index + tile.token;
  product.num_tokens = tile.num_tokens;
  product.bias = bias == nullptr ? nullptr : bias + tile.row;
  product.out = out;
  product.out_stride = tile.num_rows;
  step.compute.multiply_rows(product, 0, tile.num_rows);
}

void compute_tile(const StepContext& step, const NetworkJob& job, const Tile& tile, float* gate) {
  const kernels::KernelTable& table = step.compute.table();
  float* up = gate + kMaxItemRows * kItemTokens;
  if (job.network.gate) multiply_tile(step, job, job.network.gate, tile, gate);
  multiply_tile(step, job, job.network.up, tile, up);
  table.gated_activation(step.spec.activation, job.network.gate ? gate : up, up,
                         tile.num_tokens * tile.num_rows, step.spec.activation_limit, gate);
  const HiddenRows hidden = hidden_rows(job);
  for (size_t token = 0; token < tile.num_tokens; ++token) {
    store_hidden(table, hidden, tile.token + token, tile.row,
                 {gate + token * tile.num_rows, tile.num_rows});
  }
}

void compute_hidden_item(const StepContext& step, const NetworkJob& job, size_t item,
                         size_t worker) {
  Tile tile;
  tile.row = item * job.item_rows;
  tile.num_rows = std::min(job.item_rows, job.network.up.rows - tile.row);
  if (job.regrouper != nullptr) {
    if (job.network.gate) {
      job.regrouper->regroup_rows(job.network.gate, tile.row, tile.num_rows, worker);
    }
    job.regrouper->regroup_rows(job.network.up, tile.row, tile.num_rows, worker);
  }
  float* scratch = step.work.network_scratch(worker);
  for (; tile.token < job.num_rows; tile.token += kItemTokens) {
    tile.num_tokens = std::min(kItemTokens, job.num_rows - tile.token);
    compute_tile(step, job, tile, scratch);
  }
}

void compute_down_item(const StepContext& step, const NetworkJob& job, size_t item, size_t worker) {
  const MatrixView& down = job.network.down;
  Product product;
  product.matrix = &down;
  product.x = hidden_rows(job).view();
  product.num_tokens = job.num_rows;
  product.bias = job.network.down_bias;
  product.out = job.out;
  product.out_stride = down.rows;
  const size_t begin = item * job.item_rows;
  const size_t end = std::min(down.rows, begin + job.item_rows);
  if (job.regrouper != nullptr) job.regrouper->regroup_rows(down, begin, end - begin, worker);
  step.compute.multiply_rows(product, begin, end);
}

// Cuts the jobs into items of about `rows` rows of `matrix`; returns the number of items.
template <class RowsOf, class BlockOf>
size_t cut(std::span<NetworkJob> jobs, size_t rows, RowsOf rows_of, BlockOf block_of) {
  size_t items = 0;
  for (NetworkJob& job : jobs) {
    job.item_rows = align_up(rows, block_of(job));
    job.first_item = items;
    items += ceil_div(rows_of(job), job.item_rows);
  }
  return items;
}

const NetworkJob& job_of(std::span<const NetworkJob> jobs, size_t item) {
  const auto after = std::upper_bound(
      jobs.begin(), jobs.end(), item,
      [](size_t wanted, const NetworkJob& job) { return wanted < job.first_item; });
  return *(after - 1);
}

void compute_hidden(const StepContext& step, std::span<NetworkJob> jobs) {
  const auto rows_of = [](const NetworkJob& job) -> size_t {
    return job.computes_hidden ? job.network.up.rows : 0;
  };
  const auto block_of = [](const NetworkJob& job) {
    return std::max<size_t>(kItemRowsMultiple,
                            activation_block(traits(job.network.down.type).activations));
  };
  size_t total = 0;
  for (const NetworkJob& job : jobs) total += rows_of(job);
  if (total == 0) return;
  const size_t rows = std::min(step.compute.rows_per_item(total), kMaxItemRows);
  const size_t items = cut(jobs, rows, rows_of, block_of);
  step.compute.pool().parallel_runs(items, [&](size_t item, size_t worker) {
    const NetworkJob& job = job_of(jobs, item);
    compute_hidden_item(step, job, item - job.first_item, worker);
  });
}

void compute_down(const StepContext& step, std::span<NetworkJob> jobs) {
  const auto rows_of = [](const NetworkJob& job) -> size_t {
    return job.computes_down ? job.network.down.rows : 0;
  };
  const auto block_of = [](const NetworkJob&) { return kItemRowsMultiple; };
  size_t total = 0;
  for (const NetworkJob& job : jobs) total += rows_of(job);
  if (total == 0) return;
  const size_t items = cut(jobs, step.compute.rows_per_item(total), rows_of, block_of);
  step.compute.pool().parallel_runs(items, [&](size_t item, size_t worker) {
    const NetworkJob& job = job_of(jobs, item);
    compute_down_item(step, job, item - job.first_item, worker);
  });
}

}  // namespace

uint64_t hidden_bytes(uint64_t num_rows, uint64_t width) noexcept {
  return hidden_place(num_rows, 1, width);
}

uint64_t hidden_place(uint64_t num_rows, uint64_t job, uint64_t width) noexcept {
  // Floats take more than spread codes, scales (4 bytes for 32) and sums (2 for 16) do beside the
  // alignment.
  return align_up(num_rows * width * sizeof(float), kAlignment) + job * 4 * kAlignment;
}

uint64_t network_scratch_bytes() noexcept {
  return 2 * kMaxItemRows * kItemTokens * sizeof(float);
}

void compute_networks(const StepContext& step, std::span<NetworkJob> jobs) {
  if (jobs.empty()) return;
  const kernels::KernelTable& table = step.compute.table();
  ThreadPool& pool = step.compute.pool();
  for (NetworkJob& job : jobs) {
    if (job.network.gate) {
      job.gate_x = job.x->as(traits(job.network.gate.type).activations, table, pool);
    }
    job.up_x = job.x->as(traits(job.network.up.type).activations, table, pool);
  }
  compute_hidden(step, jobs);
  compute_down(step, jobs);
}

}  // namespace edgemoe
