#include <algorithm>

#include "model/attention.h"
#include "model/attention_queries.h"

namespace edgemoe {
namespace {

// Where queries, keys and values of a row lie in work.projected.
struct ProjectedRow {
  size_t query = 0;
  size_t key = 0;
  size_t value = 0;
  size_t size = 0;
};

ProjectedRow projected_row(const AttentionSpec& attention) {
  ProjectedRow row;
  row.key = size_t{attention.num_heads} * attention.key_size;
  row.value = row.key + size_t{attention.num_kv_heads} * attention.key_size;
  row.size = row.value + size_t{attention.num_kv_heads} * attention.value_size;
  return row;
}

void project(StepContext& step, const LayerWeights& weights, const ProjectedRow& place) {
  Workspace& work = step.work;
  const Compute& compute = step.compute;
  work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  const auto part = [&](const MatrixView& matrix, const float* bias, size_t offset) {
    return compute.product_of(matrix, bias, work.width_rows, work.projected + offset, place.size);
  };
  if (weights.qkv) {
    const Product fused = part(weights.qkv, weights.qkv_bias, place.query);
    return compute.multiply({&fused, 1});
  }
  const Product parts[] = {part(weights.query, weights.query_bias, place.query),
                           part(weights.key, weights.key_bias, place.key),
                           part(weights.value, weights.value_bias, place.value)};
  compute.multiply(parts);
}

void norm_heads(const kernels::KernelTable& table, const AttentionSpec& attention, float epsilon,
                const float* weight, std::span<float> heads) {
  if (attention.qk_norm == QkNorm::kNone) return;
  const size_t size = attention.qk_norm == QkNorm::kFullWidth ? heads.size() : attention.key_size;
  for (size_t first = 0; first < heads.size(); first += size) {
    table.rms_norm(&heads[first], weight, nullptr, size, epsilon, &heads[first]);
  }
}

void rotate_heads(const StepContext& step, uint32_t layer, size_t row, std::span<float> heads) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const RopeSpec& rope = attention.rope;
  if (rope.pairs == RopePairs::kNone) return;
  for (size_t first = 0; first < heads.size(); first += attention.key_size) {
    step.compute.table().rotate(&heads[first], rope.dimensions / 2, step.rope.cos(layer, row),
                                step.rope.sin(layer, row), rope.pairs == RopePairs::kNeighbours);
  }
}

// Norm, rotation and caching of one row.
void finish_row(const StepContext& step, uint32_t layer, size_t row) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const LayerWeights& weights = step.weights.layer(layer);
  const kernels::KernelTable& table = step.compute.table();
  const ProjectedRow place = projected_row(attention);
  float* projected = step.work.projected + row * place.size;
  if (attention.qkv_clamp != 0.0f) {
    for (size_t i = 0; i < place.size; ++i) {
      projected[i] = std::clamp(projected[i], -attention.qkv_clamp, attention.qkv_clamp);
    }
  }
  const std::span<float> queries(projected, place.key);
  const std::span<float> keys(projected + place.key, place.value - place.key);
  const auto norm = [&] {
    norm_heads(table, attention, step.spec.norm_epsilon, weights.query_norm, queries);
    norm_heads(table, attention, step.spec.norm_epsilon, weights.key_norm, keys);
  };
  if (!attention.qk_norm_after_rope) norm();
  rotate_heads(step, layer, row, queries);
  rotate_heads(step, layer, row, keys);
  if (attention.qk_norm_after_rope) norm();

  KvCache& cache = *step.rows[row].cache;
  const size_t position = step.rows[row].position;
  for (uint32_t head = 0; head < attention.num_kv_heads; ++head) {
    table.store_kv(cache.type(), &keys[size_t{head} * attention.key_size], attention.key_size,
                   cache.keys(layer, head) + position * cache.key_stride(layer));
    table.store_kv(cache.type(), projected + place.value + size_t{head} * attention.value_size,
                   attention.value_size,
                   cache.values(layer, head) + position * cache.value_stride(layer));
  }
}

QueryPlaces query_places(const StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  QueryPlaces places;
  places.queries = {step.work.projected, projected_row(attention).size, attention.key_size};
  places.results = {step.work.attended, size_t{attention.num_heads} * attention.value_size,
                    attention.value_size};
  places.sinks = step.weights.layer(layer).sinks;
  return places;
}

}  // namespace

void project_attended(StepContext& step, uint32_t layer, size_t attended_size) {
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  work.inner_rows.set(work.attended, step.rows.size(), attended_size);
  step.compute.multiply(weights.attention_output, weights.attention_output_bias, work.inner_rows,
                        work.branch, step.spec.width);
}

void attend_grouped(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  ThreadPool& pool = step.compute.pool();
  project(step, step.weights.layer(layer), projected_row(attention));
  pool.parallel_for(step.rows.size(), [&](size_t row, size_t) { finish_row(step, layer, row); });
  attend_queries(step, layer, query_places(step, layer));
  project_attended(step, layer, size_t{attention.num_heads} * attention.value_size);
}

}  // namespace edgemoe
