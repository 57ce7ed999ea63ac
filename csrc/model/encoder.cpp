#include "model/encoder.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "model/attention.h"
#include "model/layer.h"

namespace edgemoe {
namespace {

// The tokens of a prompt in batches.
class Source {
 public:
  Source(std::span<const int32_t> tokens, size_t batch, KvCache& cache)
      : tokens_(tokens), batch_(batch), cache_(cache) {
    rows_.reserve(std::min(batch, tokens.size()));
  }

  bool is_one_batch() const noexcept { return tokens_.size() <= batch_; }

  // Calls visit(rows, place) for each batch; `place` is that of its first row.
  template <class Visit>
  void for_each_batch(Visit visit) {
    for (size_t first = 0; first < tokens_.size(); first += rows_.size()) {
      rows_.clear();
      const size_t end = std::min(tokens_.size(), first + batch_);
      for (size_t place = first; place < end; ++place) {
        rows_.push_back({tokens_[place], static_cast<uint32_t>(place), &cache_});
      }
      visit(std::span<const StepRow>(rows_), first);
    }
  }

 private:
  std::span<const int32_t> tokens_;
  size_t batch_;
  KvCache& cache_;
  std::vector<StepRow> rows_;
};

// Every row sees the keys of all others, so those of later batches have to be there first. A batch
// computes its own once more with the rest of the layer: the same bits.
void store_all(Model& model, Source& source, KvCache& cache, uint32_t layer) {
  const LayerWeights& weights = model.weights.layer(layer);
  source.for_each_batch([&](std::span<const StepRow> rows, size_t first) {
    StepContext step = step_of(model, rows, true);
    norm_rows(model, cache.source_stream() + first * model.spec.width, weights.attention_norm,
              weights.attention_norm_bias, rows.size());
    store_grouped(step, layer);
  });
}

void run_layer_of_all(Model& model, Source& source, KvCache& cache, uint32_t layer) {
  if (!source.is_one_batch()) store_all(model, source, cache, layer);
  source.for_each_batch([&](std::span<const StepRow> rows, size_t first) {
    StepContext step = step_of(model, rows, true);
    step.is_part = !source.is_one_batch();
    float* stream = cache.source_stream() + first * model.spec.width;
    const size_t count = rows.size() * model.spec.width;
    std::copy_n(stream, count, model.work.x);
    run_layer(model, step, layer, Phase::kPrefill);
    std::copy_n(model.work.x, count, stream);
  });
}

void store_result(Model& model, Source& source, KvCache& cache) {
  source.for_each_batch([&](std::span<const StepRow> rows, size_t first) {
    StepContext step = step_of(model, rows, false);
    norm_rows(model, cache.source_stream() + first * model.spec.width, model.weights.encoder_norm(),
              nullptr, rows.size());
    for (uint32_t layer = step.first_layer; layer < step.end_layer; ++layer) {
      store_cross(step, layer);
    }
  });
}

void run_encoder(Model& model, Source& source, KvCache& cache, const ShouldStop& should_stop) {
  source.for_each_batch([&](std::span<const StepRow> rows, size_t first) {
    embed(model, rows, cache.source_stream() + first * model.spec.width);
    if (first != 0 || model.store == nullptr) return;
    model.store->begin_step(Phase::kPrefill);
    StepContext step = step_of(model, rows, true);
    look_ahead_of_first(step, model.look_ahead, *model.store);
  });
  for (uint32_t layer = 0; layer < model.spec.num_encoder_layers; ++layer) {
    throw_if_stopped(should_stop);
    run_layer_of_all(model, source, cache, layer);
  }
  store_result(model, source, cache);
  if (model.store != nullptr) model.store->end_step();
}

}  // namespace

void encode(Model& model, std::span<const int32_t> tokens, KvCache& cache,
            const ShouldStop& should_stop) {
  EM_CHECK(model.spec.has_encoder());
  EM_CHECK(!tokens.empty() && tokens.size() <= cache.context());
  Source source(tokens, model.work.batch, cache);
  cache.set_source_length(static_cast<uint32_t>(tokens.size()));
  try {
    run_encoder(model, source, cache, should_stop);
  } catch (...) {
    cache.set_source_length(0);
    throw;
  }
}

}  // namespace edgemoe
