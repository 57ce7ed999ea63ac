#include <algorithm>
#include <array>
#include <cmath>

#include "base/portable_math.h"
#include "model/attention.h"
#include "model/attention_queries.h"

namespace edgemoe {
namespace {

// Where queries, keys and values of a row lie in work.projected.
struct ProjectedRow {
  size_t query = 0;
  size_t key = 0;
  size_t value = 0;
  size_t gate = 0;  // of the first head
  size_t size = 0;
  size_t query_stride = 0;  // from head to head
  size_t gate_stride = 0;
};

ProjectedRow projected_row(const AttentionSpec& attention) {
  ProjectedRow row;
  const bool beside = attention.gate == AttentionGate::kBesideQuery;
  row.query_stride = size_t{attention.key_size} * (beside ? 2 : 1);
  row.key = attention.num_heads * row.query_stride;
  row.value = row.key + size_t{attention.num_kv_heads} * attention.key_size;
  row.size = row.value + size_t{attention.num_kv_heads} * attention.value_size;
  row.gate = attention.key_size;
  row.gate_stride = row.query_stride;
  if (attention.gate == AttentionGate::kOwnMatrix) {
    row.gate = row.size;
    row.gate_stride = attention.value_size;
    row.size += attention.num_heads * row.gate_stride;
  }
  return row;
}

void project(StepContext& step, const LayerWeights& weights, const ProjectedRow& place) {
  Workspace& work = step.work;
  const Compute& compute = step.compute;
  work.width_rows.set(work.normed, step.rows.size(), step.spec.width);
  const auto part = [&](const MatrixView& matrix, const float* bias, size_t offset) {
    return compute.product_of(matrix, bias, work.width_rows, work.projected + offset, place.size);
  };
  std::array<Product, 4> parts;
  size_t count = 0;
  const auto add = [&](const MatrixView& matrix, const float* bias, size_t offset) {
    if (matrix) parts[count++] = part(matrix, bias, offset);
  };
  add(weights.qkv, weights.qkv_bias, place.query);
  add(weights.query, weights.query_bias, place.query);
  add(weights.key, weights.key_bias, place.key);
  add(weights.value, weights.value_bias, place.value);
  add(weights.attention_gate, nullptr, place.gate);
  compute.multiply({parts.data(), count});
}

// Queries or keys of a row.
struct Heads {
  std::span<float> values;
  size_t stride;  // from head to head
};

void norm_heads(const kernels::KernelTable& table, const AttentionSpec& attention, float epsilon,
                const float* weight, const Heads& heads) {
  if (attention.qk_norm == QkNorm::kNone) return;
  const bool together = attention.qk_norm == QkNorm::kFullWidth;
  const size_t size = together ? heads.values.size() : attention.key_size;
  for (size_t first = 0; first < heads.values.size(); first += together ? size : heads.stride) {
    float* head = &heads.values[first];
    table.rms_norm(head, weight, nullptr, size, epsilon, head);
  }
}

void rotate_heads(const StepContext& step, uint32_t layer, size_t row, const Heads& heads) {
  const RopeSpec& rope = step.spec.layers[layer].attention.rope;
  if (rope.pairs == RopePairs::kNone) return;
  for (size_t first = 0; first < heads.values.size(); first += heads.stride) {
    step.compute.table().rotate(&heads.values[first], rope.dimensions / 2,
                                step.rope.cos(layer, row), step.rope.sin(layer, row),
                                rope.pairs == RopePairs::kNeighbours);
  }
}

// Before keys are normed and rotated.
void finish_values(const StepContext& step, const AttentionSpec& attention, const float* keys,
                   std::span<float> values) {
  const size_t size = attention.value_size;
  if (attention.values_are_keys) std::copy_n(keys, values.size(), values.begin());
  for (size_t first = 0; attention.norms_values && first < values.size(); first += size) {
    step.compute.table().rms_norm(&values[first], nullptr, nullptr, size, step.spec.norm_epsilon,
                                  &values[first]);
  }
}

// What multiplies the queries of a position (see AttentionSpec).
float temperature(const AttentionSpec& attention, uint32_t position) {
  const double units = std::floor((position + 1.0) / attention.temperature_length);
  return 1.0f + attention.temperature_scale * static_cast<float>(portable_log(1.0 + units));
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
  const Heads queries{{projected, place.key}, place.query_stride};
  const Heads keys{{projected + place.key, place.value - place.key}, attention.key_size};
  const std::span<float> values(projected + place.value,
                                size_t{attention.num_kv_heads} * attention.value_size);
  finish_values(step, attention, keys.values.data(), values);
  const auto norm = [&] {
    norm_heads(table, attention, step.spec.norm_epsilon, weights.query_norm, queries);
    norm_heads(table, attention, step.spec.norm_epsilon, weights.key_norm, keys);
  };
  if (!attention.qk_norm_after_rope) norm();
  rotate_heads(step, layer, row, queries);
  rotate_heads(step, layer, row, keys);
  if (attention.qk_norm_after_rope) norm();
  const uint32_t position = step.rows[row].position;
  if (attention.temperature_length != 0) {
    table.scale(temperature(attention, position), queries.values.size(), queries.values.data());
  }

  KvCache& cache = *step.rows[row].cache;
  for (uint32_t head = 0; head < attention.num_kv_heads; ++head) {
    table.store_kv(cache.type(), &keys.values[size_t{head} * attention.key_size],
                   attention.key_size,
                   cache.keys(layer, head) + position * cache.key_stride(layer));
    table.store_kv(cache.type(), &values[size_t{head} * attention.value_size], attention.value_size,
                   cache.values(layer, head) + position * cache.value_stride(layer));
  }
}

QueryPlaces query_places(const StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  QueryPlaces places;
  const ProjectedRow place = projected_row(attention);
  places.queries = {step.work.projected, place.size, place.query_stride};
  places.results = {step.work.attended, size_t{attention.num_heads} * attention.value_size,
                    attention.value_size};
  places.sinks = step.weights.layer(layer).sinks;
  return places;
}

void gate_attended(const StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  const ProjectedRow place = projected_row(attention);
  const size_t size = attention.value_size;
  step.compute.pool().parallel_for(step.rows.size(), [&](size_t row, size_t) {
    for (size_t head = 0; head < attention.num_heads; ++head) {
      const float* gate =
          step.work.projected + row * place.size + place.gate + head * place.gate_stride;
      float* out = step.work.attended + (row * attention.num_heads + head) * size;
      step.compute.table().gated_activation(kernels::Activation::kSigmoid, gate, out, size, 0, out);
    }
  });
}

}  // namespace

void project_attended(StepContext& step, uint32_t layer, size_t attended_size) {
  const LayerWeights& weights = step.weights.layer(layer);
  Workspace& work = step.work;
  work.inner_rows.set(work.attended, step.rows.size(), attended_size);
  step.compute.multiply(weights.attention_output, weights.attention_output_bias, work.inner_rows,
                        work.branch, step.spec.width);
}

void store_grouped(StepContext& step, uint32_t layer) {
  ThreadPool& pool = step.compute.pool();
  project(step, step.weights.layer(layer), projected_row(step.spec.layers[layer].attention));
  pool.parallel_for(step.rows.size(), [&](size_t row, size_t) { finish_row(step, layer, row); });
}

void attend_grouped(StepContext& step, uint32_t layer) {
  const AttentionSpec& attention = step.spec.layers[layer].attention;
  store_grouped(step, layer);
  attend_queries(step, layer, query_places(step, layer));
  if (attention.gate != AttentionGate::kNone) gate_attended(step, layer);
  project_attended(step, layer, size_t{attention.num_heads} * attention.value_size);
}

}  // namespace edgemoe
