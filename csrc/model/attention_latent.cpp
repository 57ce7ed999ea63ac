// Absorbed form: with c the latent row of a position, a head's key is W_k c and its value W_v c, so
// q . (W_k c) = (W_k^T q) . c. Queries are mapped into the latent space once (key_absorb), every
// head attends to the same cached rows [c | rotated key], and the mean of c is mapped out
// (value_up).
#include <cstring>

#include "model/attention.h"
#include "model/attention_queries.h"

namespace edgemoe {
namespace {

// Arrays of all rows of the step, one after another in work.projected.
struct Arrays {
  float* queries;   // [rows][heads][content + rope]
  float* latents;   // [rows][latent + rope]
  float* low_rank;  // [rows][query_rank]
  float* contents;  // [heads][rows][content]
  size_t query_size;
};

Arrays arrays_of(const StepContext& step, const AttentionSpec& attention) {
  const size_t rows = step.rows.size();
  Arrays arrays;
  arrays.query_size = size_t{attention.content_size} + attention.rope.dimensions;
  arrays.queries = step.work.projected;
  arrays.latents = arrays.queries + rows * attention.num_heads * arrays.query_size;
  arrays.low_rank = arrays.latents + rows * attention.key_size;
  arrays.contents = arrays.low_rank + rows * attention.query_rank;
  return arrays;
}

void project(StepContext& step, uint32_t layer, const Arrays& arrays) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  const Compute& compute = step.compute;
  const size_t rows = step.rows.size();
  const size_t query_width = attention.num_heads * arrays.query_size;
  work.width_rows.set(work.normed, rows, step.spec.width);
  const bool low_rank = attention.query_rank != 0;
  const Product down[] = {
      compute.product_of(weights.latent_down, nullptr, work.width_rows, arrays.latents,
                         attention.key_size),
      compute.product_of(low_rank ? weights.query_down : weights.query, nullptr, work.width_rows,
                         low_rank ? arrays.low_rank : arrays.queries,
                         low_rank ? attention.query_rank : query_width)};
  compute.multiply(down);
  if (!low_rank) return;
  compute.pool().parallel_for(rows, [&](size_t row, size_t) {
    float* values = arrays.low_rank + row * attention.query_rank;
    compute.table().rms_norm(values, weights.query_down_norm, nullptr, attention.query_rank,
                             step.spec.norm_epsilon, values);
  });
  work.inner_rows.set(arrays.low_rank, rows, attention.query_rank);
  compute.multiply(weights.query_up, nullptr, work.inner_rows, arrays.queries, query_width);
}

// Norm, rotation and caching of one row; its queries are split into content and rotated parts.
void finish_row(const StepContext& step, uint32_t layer, const Arrays& arrays, size_t row) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  const kernels::KernelTable& table = step.compute.table();
  const size_t pairs = attention.rope.dimensions / 2;
  const bool neighbours = attention.rope.pairs == RopePairs::kNeighbours;
  const float* cos = step.rope.cos(layer, row);
  const float* sin = step.rope.sin(layer, row);

  float* latent = arrays.latents + row * attention.key_size;
  table.rms_norm(latent, weights.latent_norm, nullptr, attention.latent_size,
                 step.spec.norm_epsilon, latent);
  table.rotate(latent + attention.latent_size, pairs, cos, sin, neighbours);
  KvCache& cache = *step.rows[row].cache;
  table.store_kv(cache.type(), latent, attention.key_size,
                 cache.keys(layer, 0) + step.rows[row].position * cache.key_stride(layer));

  for (uint32_t head = 0; head < attention.num_heads; ++head) {
    float* query = arrays.queries + (row * attention.num_heads + head) * arrays.query_size;
    float* rotated = query + attention.content_size;
    table.rotate(rotated, pairs, cos, sin, neighbours);
    std::memcpy(arrays.contents + (head * step.rows.size() + row) * attention.content_size, query,
                attention.content_size * sizeof(float));
    float* absorbed = step.work.absorbed + (row * attention.num_heads + head) * attention.key_size;
    std::memcpy(absorbed + attention.latent_size, rotated,
                attention.rope.dimensions * sizeof(float));
  }
}

// Per head: out[row][head * out_size ...] = matrices[head] . in[head][row].
void multiply_heads(const StepContext& step, std::span<const MatrixView> matrices, const float* in,
                    float* out, size_t head_stride) {
  const size_t rows = step.rows.size();
  const size_t heads = matrices.size();
  ActivationRows& all = step.work.inner_rows;
  all.set(in, heads * rows, matrices[0].columns);
  const Activations x =
      all.as(traits(matrices[0].type).activations, step.compute.table(), step.compute.pool());
  step.compute.pool().parallel_for(heads, [&](size_t head, size_t) {
    Product product;
    product.matrix = &matrices[head];
    product.x = from_row(x, head * rows);
    product.num_tokens = rows;
    product.out = out + head * head_stride;
    product.out_stride = heads * head_stride;
    step.compute.multiply_rows(product, 0, matrices[head].rows);
  });
}

QueryPlaces query_places(const StepContext& step, const AttentionSpec& attention) {
  QueryPlaces places;
  places.queries = {step.work.absorbed, size_t{attention.num_heads} * attention.key_size,
                    attention.key_size};
  places.results = {step.work.context, attention.latent_size,
                    step.rows.size() * attention.latent_size};
  return places;
}

}  // namespace

void attend_latent(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  const Arrays arrays = arrays_of(step, attention);
  ThreadPool& pool = step.compute.pool();
  const size_t rows = step.rows.size();
  project(step, layer, arrays);
  pool.parallel_for(rows, [&](size_t row, size_t) { finish_row(step, layer, arrays, row); });
  multiply_heads(step, weights.key_absorb, arrays.contents, step.work.absorbed, attention.key_size);
  attend_queries(step, layer, query_places(step, attention));
  multiply_heads(step, weights.value_up, step.work.context, step.work.attended,
                 attention.head_value_size);
  project_attended(step, layer, size_t{attention.num_heads} * attention.head_value_size);
}

}  // namespace edgemoe
