#include <array>

#include "model/attention.h"
#include "model/attention_queries.h"

namespace edgemoe {

void attend_cross(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].cross;
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  const size_t rows = step.rows.size();
  const size_t query_size = size_t{attention.num_heads} * attention.key_size;
  const size_t result_size = size_t{attention.num_heads} * attention.value_size;
  work.width_rows.set(work.normed, rows, step.spec.width);
  step.compute.multiply(weights.cross_query, nullptr, work.width_rows, work.projected, query_size);
  QueryPlaces places;
  places.queries = {work.projected, query_size, attention.key_size};
  places.results = {work.attended, result_size, attention.value_size};
  places.cross = true;
  attend_queries(step, layer, places);
  work.inner_rows.set(work.attended, rows, result_size);
  step.compute.multiply(weights.cross_output, nullptr, work.inner_rows, work.branch,
                        step.spec.width);
}

void store_cross(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].cross;
  const LayerWeights& weights = step.weights.layer(layer);
  const kernels::KernelTable& table = step.compute.table();
  Workspace& work = step.work;
  const size_t rows = step.rows.size();
  const size_t value = size_t{attention.num_kv_heads} * attention.key_size;  // its place in a row
  const size_t size = value + size_t{attention.num_kv_heads} * attention.value_size;
  work.width_rows.set(work.normed, rows, step.spec.width);
  const std::array parts = {
      step.compute.product_of(weights.cross_key, nullptr, work.width_rows, work.projected, size),
      step.compute.product_of(weights.cross_value, nullptr, work.width_rows, work.projected + value,
                              size)};
  step.compute.multiply(parts);
  step.compute.pool().parallel_for(rows, [&](size_t row, size_t) {
    KvCache& cache = *step.rows[row].cache;
    const uint32_t place = cache.cross(layer);
    const uint32_t position = step.rows[row].position;
    const float* keys = work.projected + row * size;
    for (uint32_t head = 0; head < attention.num_kv_heads; ++head) {
      table.store_kv(cache.type(), keys + head * attention.key_size, attention.key_size,
                     cache.keys(place, head) + position * cache.key_stride(place));
      table.store_kv(cache.type(), keys + value + head * attention.value_size, attention.value_size,
                     cache.values(place, head) + position * cache.value_stride(place));
    }
  });
}

}  // namespace edgemoe
