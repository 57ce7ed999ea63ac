#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <system_error>

#include "base/error.h"
#include "base/units.h"
#include "engine/engine_parts.h"
#include "engine/learned_state.h"
#include "engine/machine_limits.h"
#include "engine/predictor_choice.h"
#include "engine/system_memory.h"
#include "kernels/dispatch.h"
#include "model/ffn.h"
#include "model/step_recording.h"
#include "weights/checksums.h"

namespace edgemoe {
namespace {

std::vector<File> open_files(const GgufFile& gguf, const ReaderOptions& reader) {
  std::vector<File> files;
  for (const std::string& path : gguf.paths()) {
    files.push_back(open_for_backend(path, reader.backend));
  }
  return files;
}

size_t longest_row(const ModelFile& file) {
  size_t longest = 0;
  for (const TensorInfo& tensor : file.gguf().tensors()) {
    longest = std::max<size_t>(longest, row_bytes(tensor.type, tensor.columns()));
  }
  return longest;
}

// Fills the per-expert factors that some files carry beside the tensors.
ModelTensors with_expert_scales(const ModelTensors& tensors, std::span<const File> files) {
  ModelTensors filled = tensors;
  for (LayerTensors& layer : filled.layers) {
    for (size_t i = 0; i < layer.experts.size(); ++i) {
      const TensorInfo* scales = layer.expert_scales[i];
      if (scales == nullptr) continue;
      layer.experts[i].scales.resize(scales->columns() * scales->rows());
      files[scales->shard].read_exact(scales->offset,
                                      std::as_writable_bytes(std::span(layer.experts[i].scales)));
      for (ExpertTensor& low : layer.low_copies) {
        if (low.matrix == layer.experts[i].matrix) low.scales = layer.experts[i].scales;
      }
    }
  }
  return filled;
}

std::unique_ptr<ExpertStore> make_store(const ModelFile& file, std::span<const File> files,
                                        const EngineOptions& options, const MemoryPlan& plan,
                                        const ShouldStop& should_stop) {
  if (!file.spec().is_moe()) return nullptr;
  uint64_t alignment = 1;
  for (const File& one : files) alignment = std::max<uint64_t>(alignment, one.alignment());
  ExpertLayout layout = expert_layout(file.spec(), with_expert_scales(file.tensors(), files),
                                      alignment, options.lossy_low_copy < 1);
  ExpertStoreOptions store;
  const uint64_t pool_bytes = plan.expert_pool_bytes;
  store.most_pool_bytes = plan.most_pool_bytes;
  store.eviction = options.eviction;
  store.preload = preload_of(options.mode, options.preload);
  // What would be read ahead is what lossy options would do without.
  store.auto_in_decode = options.lossy_routing == 1 && options.lossy_low_copy == 1;
  store.keep = rules_of(options.mode).keeps;
  store.num_used = file.spec().router.num_used;
  if (options.verify) {
    store.checksums = file.packed()->expert_checksums;
    store.low_checksums = file.packed()->low_checksums;
  }
  // Measuring takes memory that the pool has not touched yet; a small pool is not worth it.
  constexpr uint64_t kWorthMeasuring = 256 * kMiB;
  const bool streams = pool_bytes < layout.total_slot_bytes();
  if (rules_of(options.mode).whole_layers) {
    store.in_flight_bytes = pool_bytes;
  } else if (options.in_flight_bytes != 0) {
    store.in_flight_bytes = options.in_flight_bytes;
  } else if (streams && pool_bytes >= kWorthMeasuring && store.preload != PreloadPolicy::kNone) {
    store.in_flight_bytes = device_in_flight_bytes(file, files, options, should_stop);
  }
  store.pool_bytes = std::max(align_down(pool_bytes, std::max<uint64_t>(alignment, 64)),
                              ExpertStore::min_pool_bytes(layout));
  return std::make_unique<ExpertStore>(std::move(layout), files,
                                       make_reader(options.reader, files[0]), store);
}

void verify_dense(const ModelFile& file, const ShouldStop& should_stop) {
  if (!file.packed()) {
    throw Error(ErrorCode::kArgument, file.gguf().paths()[0] +
                                          ": has no checksums to verify; load it without verify, "
                                          "or pack it with edgemoe pack");
  }
  const auto progress = [&](uint64_t) { return should_stop && should_stop(); };
  const ChecksumReport report = verify_checksums(file.gguf(), file.tensors(), *file.packed(),
                                                 ChecksumScope::kDense, progress);
  if (report.first_damaged) throw Error(ErrorCode::kFormat, describe(*report.first_damaged));
}

// Decided by what the user asked for, not by what the budget left of it.
bool uses_long_factors(const ModelSpec& spec, const EngineOptions& options) {
  const uint32_t original = spec.layers.front().attention.rope.original_context;
  return original != 0 && wanted_context(spec, options) > original;
}

const TensorInfo& embedding_of(const ModelFile& file) {
  return *file.tensors()[TensorRole::kTokenEmbedding].info;
}

}  // namespace

Engine::Impl::Impl(const ModelFile& model_file, const EngineOptions& engine_options,
                   const MemoryPlan& memory, const ShouldStop& should_stop)
    : file(model_file),
      options(engine_options),
      plan(memory),
      governor(governor_bounds(memory)),
      pool(memory.num_threads),
      files(open_files(model_file.gguf(), options.reader)),
      compute(pool, kernels::select_table()),
      weights(model_file.spec(), model_file.tensors(), files, pool, should_stop),
      embedding(model_file.tensors()[TensorRole::kTokenEmbedding],
                files[embedding_of(model_file).shard], memory.num_threads),
      rope(model_file.spec(), weights.rope_factors(uses_long_factors(model_file.spec(), options)),
           memory.batch),
      position_bias(model_file.spec(), weights, memory.context),
      work(model_file.spec(), memory.batch, memory.num_threads),
      regrouper(pool, longest_row(model_file)),
      store(make_store(model_file, files, options, memory, should_stop)),
      cache(model_file.spec(), memory.context, options.kv_type),
      model{model_file.spec(),
            weights,
            compute,
            embedding,
            rope,
            position_bias,
            work,
            regrouper,
            store.get(),
            {},
            rules_of(options.mode).whole_layers} {
  // What is learned is for choosing what to keep.
  if (!rules_of(options.mode).keeps) options.cache_folder.clear();
  PredictorChoice choice = choose_predictor(model_file.spec(), options);
  if (choice.learned) learned.emplace(std::move(*choice.learned));
  model.look_ahead = {choice.predictor, choice.look_ahead, learned ? &*learned : nullptr};
  if (options.trace) {
    trace.emplace(step_capacity(model_file.spec(), memory.batch));
    model.trace = &*trace;
    if (store) model.recall = &recall.emplace(model_file.spec());
  }
  if (options.lossy_routing < 1 && store) {
    cache_routing.emplace(options.lossy_routing, model_file.spec().router, store->cache(),
                          store->layout());
    model.cache_routing = &*cache_routing;
  }
  if (options.lossy_low_copy < 1 && store) {
    low_copies.emplace(options.lossy_low_copy, store->cache(), store->layout());
    model.low_copies = &*low_copies;
  }
  pool.set_between_items([this] {
    if (store) store->pump();
  });
  // The use of experts that is learned is not that of the model as it is.
  if (cache_routing || low_copies) keeps_learned = false;
}

Engine::Impl::~Impl() {
  stop_warm_up = true;
  if (warm_up.joinable()) warm_up.join();
  // Recorded routing says nothing about this model.
  if (store && tokens > 0 && !script && !options.cache_folder.empty() && keeps_learned) {
    keep_learned();
  }
}

void Engine::Impl::take_up_learned() {
  const Sections sections = read_model_state(options.cache_folder, file);
  store->learn(sections);
  if (learned) learned->load(sections);
}

void Engine::Impl::keep_learned() noexcept {
  try {
    Sections sections = store->learned();
    // Of the tables there will be copies, for which the slots make room.
    store.reset();
    if (learned) learned->save(sections);
    write_model_state(options.cache_folder, file, sections);
  } catch (const std::bad_alloc&) {
    // Without memory for it nothing is kept.
  }
}

std::unique_lock<OwnedMutex> Engine::Impl::lock() {
  mutex.refuse_owner();
  ++num_waiting;
  std::unique_lock taken(mutex);
  --num_waiting;
  return taken;
}

std::unique_lock<OwnedMutex> Engine::Impl::lock_for_step() {
  stop_warm_up = true;
  return lock();
}

void Engine::Impl::read_hottest() noexcept {
  constexpr std::chrono::microseconds kMakeWay(200);
  try {
    for (bool more = true; more && !stop_warm_up;) {
      // A mutex is not fair: who takes it again at once keeps others out.
      while (num_waiting > 0 && !stop_warm_up) std::this_thread::sleep_for(kMakeWay);
      const std::lock_guard taken(mutex);
      more = store->warm_up();
    }
  } catch (const std::exception&) {
    // Whoever needs an expert reads it, and hears what is wrong.
  }
}

void Engine::Impl::start_warm_up() {
  try {
    warm_up = std::thread([this] { read_hottest(); });
  } catch (const std::system_error&) {
    // Without a thread for it experts are read when they are first used.
  }
}

namespace {

void check_keeps_experts(const EngineOptions& options, const std::string& option) {
  if (rules_of(options.mode).keeps) return;
  throw Error(ErrorCode::kArgument, "mode " + std::string(rules_of(options.mode).name) +
                                        " keeps no experts that " + option +
                                        " could prefer; use mode stream");
}

void check_low_copy(const EngineOptions& options, const ModelFile& file) {
  const double threshold = options.lossy_low_copy;
  if (!(threshold >= 0 && threshold <= 1)) {
    throw Error(ErrorCode::kArgument,
                "lossy_low_copy is a share of the routing weight: 0 to 1, where 1 is exact");
  }
  if (threshold == 1) return;
  if (!file.has_low_copies()) {
    throw Error(ErrorCode::kArgument,
                file.gguf().paths()[0] +
                    ": has no low copies of experts for lossy_low_copy; pack the model with "
                    "edgemoe pack --low-copy TYPE, or leave the option out");
  }
  check_keeps_experts(options, "lossy_low_copy");
}

void check_lossy_routing(const EngineOptions& options) {
  const double target = options.lossy_routing;
  if (!(target >= CacheRouting::kLeastAgreement && target <= 1)) {
    throw Error(ErrorCode::kArgument,
                "lossy_routing is the share of the routing weight that is kept: 0.5 to 1");
  }
  if (target < 1) check_keeps_experts(options, "lossy_routing");
}

}  // namespace

std::unique_ptr<Engine> Engine::load(const ModelFile& file, const EngineOptions& options,
                                     const ShouldStop& should_stop) {
  constexpr uint32_t kMaxThreads = 1024;
  if (options.num_threads > kMaxThreads) {
    throw Error(ErrorCode::kArgument, "threads must be at most 1024");
  }
  if (options.look_ahead > ReadAhead::kMaxDistance) {
    throw Error(ErrorCode::kArgument, "look_ahead must be at most " +
                                          std::to_string(ReadAhead::kMaxDistance) + " layers");
  }
  preload_of(options.mode, options.preload);
  check_lossy_routing(options);
  check_low_copy(options, file);
  if (options.trace && file.spec().has_encoder()) {
    throw Error(ErrorCode::kUnsupported,
                "models with an encoder cannot be traced yet; use one that only has a decoder");
  }
  const MemoryPlan plan = file.plan(options);
  if (plan.budget_bytes < plan.least_bytes) {
    throw Error(ErrorCode::kBudget, describe_shortage(plan));
  }
  if (options.verify) verify_dense(file, should_stop);
  auto impl = std::make_unique<Impl>(file, options, plan, should_stop);
  const bool learns = impl->store && !impl->options.cache_folder.empty();
  if (learns) impl->take_up_learned();
  std::unique_ptr<Engine> engine(new Engine(std::move(impl)));
  if (options.mode == Mode::kResident) {
    engine->load_all_experts(should_stop);
  } else if (learns) {
    engine->impl_->start_warm_up();
  }
  return engine;
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

void Engine::load_all_experts(const ShouldStop& should_stop) {
  const auto lock = impl_->lock_for_step();
  if (!impl_->store || impl_->plan.expert_pool_bytes < impl_->plan.all_experts_bytes) return;
  const ModelSpec& model = impl_->file.spec();
  impl_->store->begin_step(Phase::kLoading);
  for (uint32_t layer = 0; layer < model.num_layers; ++layer) {
    if (model.layers[layer].ffn.kind != FfnKind::kMoe) continue;
    edgemoe::visit_experts({*impl_->store, impl_->regrouper, impl_->model.look_ahead}, layer, 0,
                           model.router.num_experts,
                           [&](const ReadyExpert&) { throw_if_stopped(should_stop); });
  }
}

void Engine::visit_experts(uint32_t layer, uint32_t first, uint32_t count,
                           const std::function<void(ThreadPool&, const ReadyExpert&)>& visit,
                           const ShouldStop& should_stop) {
  const auto lock = impl_->lock_for_step();
  const ModelSpec& model = impl_->file.spec();
  if (layer >= model.num_layers || model.layers[layer].ffn.kind != FfnKind::kMoe ||
      first > model.router.num_experts || count > model.router.num_experts - first) {
    throw Error(ErrorCode::kArgument, "layer " + std::to_string(layer) + " has no experts " +
                                          std::to_string(first) + " to " +
                                          std::to_string(uint64_t{first} + count));
  }
  impl_->store->begin_step(Phase::kPrefill);
  edgemoe::visit_experts({*impl_->store, impl_->regrouper, impl_->model.look_ahead}, layer, first,
                         count, [&](const ReadyExpert& expert) {
                           throw_if_stopped(should_stop);
                           visit(impl_->pool, expert);
                         });
}

void Engine::observe_experts(ExpertObserver* observer) {
  const auto lock = impl_->lock();
  impl_->model.observer = observer;
}

double Engine::measure_memory() {
  // More than last-level caches hold, and what takes some milliseconds to read.
  constexpr size_t kLeast = 128 * kMiB;
  constexpr size_t kMost = 256 * kMiB;
  const auto lock = impl_->lock_for_step();
  const std::span<const std::byte> held = impl_->weights.memory();
  if (held.size() < kLeast) return 0;
  return measure_read_bandwidth(impl_->pool, held.first(std::min(held.size(), kMost)));
}

void Engine::keep_nothing_learned() {
  const auto lock = impl_->lock();
  impl_->keeps_learned = false;
}

const ModelSpec& Engine::spec() const noexcept {
  return impl_->file.spec();
}
const char* Engine::level() const noexcept {
  return impl_->compute.table().level;
}

std::string_view Engine::io_backend() const noexcept {
  return impl_->store ? impl_->store->backend() : "none";
}

TraceEvents Engine::take_trace() {
  const auto lock = impl_->lock();
  if (!impl_->trace) {
    throw Error(ErrorCode::kArgument, "this engine records nothing; load it with the option trace");
  }
  EventTrace& trace = *impl_->trace;
  TraceEvents events;
  events.routing.assign(trace.routing().begin(), trace.routing().end());
  events.layers.assign(trace.layers().begin(), trace.layers().end());
  events.complete = trace.complete();
  trace.clear();
  return events;
}

RouterRecall::Counts Engine::router_recall() const {
  const auto lock = impl_->lock();
  return impl_->recall ? impl_->recall->counts() : RouterRecall::Counts{};
}

void Engine::set_routing(RouteScript script) {
  const auto lock = impl_->lock();
  if (impl_->cache_routing || impl_->low_copies) {
    const std::string option = impl_->cache_routing ? "lossy_routing" : "lossy_low_copy";
    throw Error(ErrorCode::kArgument,
                "recorded routing has no scores, which " + option + " needs; use one or the other");
  }
  impl_->model.script = &impl_->script.emplace(std::move(script));
}

void Engine::start_routing_at(uint64_t step) {
  const auto lock = impl_->lock();
  if (impl_->script) impl_->script->start_at(step);
}

EngineStats Engine::stats() const {
  const ProcessMemory memory = process_memory();  // takes longer than all that needs the lock
  const Impl::LetIn let_in(*impl_);
  // A signal handler of the thread that runs a step: nothing changes until it returns.
  std::unique_lock<OwnedMutex> lock;
  if (!impl_->mutex.is_mine()) lock = impl_->lock();
  EngineStats stats;
  if (impl_->store) {
    stats.experts = impl_->store->stats();
    stats.prefill = impl_->store->stats(Phase::kPrefill);
    stats.decode = impl_->store->stats(Phase::kDecode);
    stats.loading = impl_->store->stats(Phase::kLoading);
    stats.expert_pool_bytes = impl_->store->cache().pool_bytes();
    stats.reads = impl_->store->read_stats();
    stats.read_ahead = impl_->store->read_ahead_stats();
    for (uint32_t layer = 0; layer < impl_->store->layout().num_layers(); ++layer) {
      stats.layers.push_back(impl_->store->layer_stats(layer));
    }
  }
  if (impl_->cache_routing) stats.cache_routing = impl_->cache_routing->stats();
  if (impl_->low_copies) stats.low_copies = impl_->low_copies->stats();
  stats.pool_shrinks = impl_->governor.shrinks();
  stats.pool_grows = impl_->governor.grows();
  stats.steps = impl_->steps;
  stats.tokens = impl_->tokens;
  stats.step_ns = impl_->step_ns;
  stats.resident_bytes = memory.resident_bytes;
  stats.peak_resident_bytes = memory.peak_resident_bytes;
  return stats;
}

}  // namespace edgemoe
