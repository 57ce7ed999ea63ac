#include "engine/model_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/units.h"
#include "engine/predictor_choice.h"
#include "engine/system_memory.h"
#include "experts/popularity.h"
#include "model/kv_cache.h"
#include "model/model_weights.h"
#include "model/position_bias.h"
#include "model/regrouper.h"
#include "model/rope_table.h"
#include "model/router_recall.h"
#include "model/spec_reader.h"
#include "model/step_recording.h"
#include "model/workspace.h"

namespace edgemoe {
namespace {

// What Python, the allocator, the sampler and the kernel take beyond the arrays that are counted:
// measured at 10 to 18 MiB on x86-64 with glibc.
constexpr uint64_t kSlackBytes = 24 * kMiB;
constexpr uint64_t kThreadBytes = 256 * kKiB;  // touched stack, per thread
constexpr uint64_t kReaderBytes = 8 * kMiB;    // I/O threads, rings, bounce buffers
constexpr uint64_t kLowCopyBytes = 1 * kKiB;   // what is noted of a low copy, of its place and use
constexpr uint64_t kTraceCopies = 3;           // the trace, what was taken from it, in Python
constexpr uint64_t kLogitCopies = 4;           // in C++, Python and the sampler's candidates

constexpr uint32_t kLeastBatch = 8;
constexpr uint32_t kLeastContext = 1024;

size_t longest_row_bytes(const GgufFile& file) {
  size_t longest = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    longest = std::max<size_t>(longest, row_bytes(tensor.type, tensor.columns()));
  }
  return longest;
}

uint64_t planned_alignment(const GgufFile& gguf, const EngineOptions& options) {
  uint64_t alignment = kAssumedAlignment;
  for (const std::string& path : gguf.paths()) {
    const File file = open_for_backend(path, options.reader.backend);
    alignment = std::max<uint64_t>(alignment, file.alignment());
  }
  return alignment;
}

class Planner {
 public:
  Planner(const GgufFile& gguf, const ModelSpec& spec, const ModelTensors& tensors,
          const EngineOptions& options)
      : gguf_(gguf), spec_(spec), options_(options) {
    plan_.mode = options.mode;
    plan_.reserved_bytes = options.reserved_bytes;
    plan_.process_bytes = process_memory().resident_bytes;
    plan_.num_threads = options.num_threads != 0 ? options.num_threads : usable_cpus();
    plan_.dense_bytes = ModelWeights::bytes(spec, tensors);
    if (!spec.is_moe()) return;
    const PredictorChoice choice = choose_predictor(spec, options);
    plan_.predictor = choice.predictor;
    plan_.learned_bytes = Popularity::bytes(size_t{spec.num_layers} * spec.router.num_experts) +
                          (choice.learned ? LearnedRouting::bytes(*choice.learned) : 0);
    const ExpertLayout layout =
        expert_layout(spec, tensors, planned_alignment(gguf, options), options.lossy_low_copy < 1);
    if (layout.has_low_copies()) {
      plan_.learned_bytes += uint64_t{spec.num_layers} * spec.router.num_experts * kLowCopyBytes;
    }
    const auto bounds = [&](Mode mode) {
      return pool_bounds(mode, layout, spec.router.num_used, options.look_ahead);
    };
    plan_.least_pool_bytes = bounds(options.mode).least;
    plan_.most_pool_bytes = bounds(options.mode).most;
    plan_.all_experts_bytes = bounds(Mode::kResident).most;
    // Experts of a packed file differ in size: a token uses them at their mean.
    plan_.token_expert_bytes =
        ceil_div(decoded_bytes(layout) * spec.router.num_used, spec.router.num_experts);
  }

  MemoryPlan plan() {
    const uint32_t largest_context = wanted_context(spec_, options_);
    plan_.least_bytes =
        total(smallest_context(largest_context), smallest_batch(), plan_.least_pool_bytes);
    plan_.budget_bytes = budget_bytes(options_, plan_.least_bytes);
    plan_.context = choose_context(largest_context);
    plan_.batch = choose_batch();
    plan_.kv_cache_bytes = context_bytes(plan_.context);
    plan_.scratch_bytes = scratch(plan_.batch);
    share_budget(plan_, plan_.budget_bytes, plan_.most_pool_bytes);
    return plan_;
  }

 private:
  // Of the experts that generating goes through: those of an encoder are for the prompt.
  uint64_t decoded_bytes(const ExpertLayout& layout) const {
    uint64_t bytes = layout.total_weight_bytes();
    for (uint32_t layer = 0; layer < spec_.num_encoder_layers; ++layer) {
      for (uint32_t expert = 0; layout.is_moe(layer) && expert < layout.num_experts(); ++expert) {
        bytes -= layout.place(layer, expert).weight_bytes;
      }
    }
    return bytes;
  }

  // What grows with the context.
  uint64_t context_bytes(uint32_t context) const {
    return KvCache::bytes(spec_, context, options_.kv_type) + PositionBias::bytes(spec_, context);
  }

  uint64_t scratch(uint32_t batch) const {
    const uint64_t trace = options_.trace
                               ? kTraceCopies * EventTrace::bytes(step_capacity(spec_, batch)) +
                                     RouterRecall::bytes(spec_)
                               : 0;
    return trace + Workspace::bytes(spec_, batch, plan_.num_threads) +
           RopeTable::bytes(spec_, batch) +
           Regrouper::scratch_bytes(longest_row_bytes(gguf_), plan_.num_threads) +
           kLogitCopies * spec_.vocab_size * sizeof(float) + plan_.num_threads * kThreadBytes +
           kReaderBytes + kSlackBytes;
  }

  uint64_t total(uint32_t context, uint32_t batch, uint64_t pool) const {
    return with_page_tables(plan_.process_bytes + plan_.dense_bytes + plan_.learned_bytes +
                            plan_.reserved_bytes + context_bytes(context) + scratch(batch) + pool);
  }

  uint32_t smallest_context(uint32_t largest) const {
    return options_.context != 0 ? options_.context : std::min(largest, kLeastContext);
  }
  uint32_t smallest_batch() const { return options_.batch != 0 ? options_.batch : kLeastBatch; }

  bool fits(uint32_t context, uint32_t batch, uint64_t pool) const {
    return total(context, batch, pool) <= plan_.budget_bytes;
  }

  // Unless the user said how long, the KV cache takes at most a quarter of what the dense weights
  // leave: slots are worth more than positions that are seldom used.
  uint32_t choose_context(uint32_t largest) const {
    uint32_t context = largest;
    if (options_.context != 0) return context;
    const uint64_t fixed = plan_.process_bytes + plan_.dense_bytes + plan_.learned_bytes +
                           plan_.reserved_bytes + kSlackBytes;
    const uint64_t left = plan_.budget_bytes - std::min(plan_.budget_bytes, fixed);
    const auto too_large = [&] {
      return context_bytes(context) > left / 4 ||
             !fits(context, smallest_batch(), plan_.least_pool_bytes);
    };
    while (context / 2 >= kLeastContext && too_large()) context /= 2;
    return fits(context, smallest_batch(), plan_.least_pool_bytes) ? context
                                                                   : smallest_context(largest);
  }

  // A larger batch reads each expert less often in prefill, and takes slots from decode: up to an
  // eighth of what is left, beyond kDefaultBatch a sixteenth. Where most experts fit, few are read.
  uint32_t choose_batch() const {
    const uint32_t context = plan_.context;
    if (options_.batch != 0) return std::min(options_.batch, context);
    const uint64_t fixed = total(context, kLeastBatch, 0);
    const uint64_t left = plan_.budget_bytes - std::min(plan_.budget_bytes, fixed);
    const bool streams = !fits(context, kDefaultBatch, plan_.all_experts_bytes / 4 * 3);
    uint32_t batch = std::min(streams ? kStreamingBatch : kDefaultBatch, context);
    const auto too_large = [&] {
      const uint64_t share = batch > kDefaultBatch ? left / 16 : left / 8;
      return scratch(batch) - scratch(kLeastBatch) > share ||
             !fits(context, batch, plan_.least_pool_bytes);
    };
    while (batch > kLeastBatch && too_large()) batch /= 2;
    return std::max(1u, std::min(batch, context));
  }

  const GgufFile& gguf_;
  const ModelSpec& spec_;
  const EngineOptions& options_;
  MemoryPlan plan_;
};

}  // namespace

uint32_t wanted_context(const ModelSpec& spec, const EngineOptions& options) noexcept {
  if (options.context != 0) return options.context;
  return spec.trained_context == 0 ? kDefaultContext
                                   : std::min(spec.trained_context, kDefaultContext);
}

uint64_t budget_bytes(const EngineOptions& options, uint64_t least_bytes) {
  switch (options.memory) {
    case EngineOptions::Memory::kBytes:
      return options.memory_bytes;
    case EngineOptions::Memory::kLeast:
      return least_bytes;
    case EngineOptions::Memory::kAuto:
      return automatic_budget(system_memory(options.system_root), process_memory());
  }
  return least_bytes;
}

ModelFile::ModelFile(const std::string& path) : gguf_(GgufFile::open(path)) {
  const ModelCounts counts = read_counts(gguf_);
  packed_ = read_packed_container(gguf_, counts.num_layers, counts.num_experts);
  if (packed_ && counts.num_encoder_layers != 0) {
    throw Error(ErrorCode::kUnsupported,
                path +
                    ": packed containers of models with an encoder are not known; use the file "
                    "that it was packed from");
  }
  tensors_ = bind_tensors(gguf_, counts);
  tensors_.experts_regrouped = packed_.has_value();
  spec_ = read_spec(gguf_, tensors_, counts);
}

MemoryPlan ModelFile::plan(const EngineOptions& options) const {
  return Planner(gguf_, spec_, tensors_, options).plan();
}

ExpertLayout expert_layout(const ModelSpec& spec, const ModelTensors& tensors, uint64_t alignment,
                           bool low_copies) {
  std::vector<std::vector<ExpertTensor>> experts;
  std::vector<std::vector<ExpertTensor>> copies;
  bool any_copies = false;
  for (const LayerTensors& layer : tensors.layers) {
    experts.push_back(layer.experts);
    copies.push_back(layer.low_copies);
    any_copies = any_copies || !layer.low_copies.empty();
  }
  if (!low_copies || !any_copies) copies.clear();
  return ExpertLayout(experts, spec.router.num_experts, alignment, tensors.experts_regrouped,
                      copies);
}

}  // namespace edgemoe
