#include "experts/expert_store.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "experts/expert_loads.h"
#include "experts/hottest_experts.h"
#include "experts/read_trial.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

// Under way while a batch is computed: a tenth of a second of a fast device.
constexpr uint64_t kBatchInFlightBytes = 256u << 20;

// Of the pool, what reading ahead may have under way: slots that load cannot make room. A pool that
// keeps nothing needs no room for more than the running layer.
constexpr uint64_t kAheadShare = 4;
constexpr uint64_t kUnkeptAheadShare = 2;

constexpr uint64_t ExpertStats::* kStatFields[] = {
    &ExpertStats::demands,     &ExpertStats::hits,         &ExpertStats::evictions,
    &ExpertStats::bytes_read,  &ExpertStats::stall_ns,     &ExpertStats::busy_ns,
    &ExpertStats::ahead_bytes, &ExpertStats::useful_bytes, &ExpertStats::wasted_bytes,
};
static_assert(sizeof(kStatFields) / sizeof(kStatFields[0]) ==
              sizeof(ExpertStats) / sizeof(uint64_t));

// Sections of what is learned.
constexpr const char* kPopularity = "popularity of experts";
constexpr const char* kTrialRatio = "time with reading ahead over time without";
constexpr const char* kTrust = "trust in guesses";

}  // namespace

// Requests, and what to read when none waits; ExpertLoads does the reading.
struct ExpertStore::Impl : ExpertLoads {
  Impl(ExpertLayout expert_layout, std::span<const File> model_files,
       std::unique_ptr<AsyncReader> reader, const ExpertStoreOptions& options)
      : ExpertLoads(std::move(expert_layout), model_files, std::move(reader), options),
        ahead(layout.num_layers(), layout.num_experts(), options.num_used, options.preload),
        preload(options.preload),
        auto_in_decode(options.auto_in_decode),
        in_flight_limit(std::max<uint64_t>(options.in_flight_bytes, 1)),
        layer_stats(layout.num_layers()) {
    demanded.reserve(layout.num_experts());
    ready.reserve(layout.num_experts());
    to_load.reserve(layout.num_experts());
    in_use.reserve(layout.num_experts());
    guesses.reserve(layout.num_experts());
    asked_for.reserve(layout.num_experts());
  }

  ReadAhead ahead;
  PreloadPolicy preload;
  bool auto_in_decode;
  ReadTrial trial;  // of reading ahead in decode
  Clock::time_point step_start;
  std::vector<ReadAhead::Guess> guesses;  // scratch
  std::vector<ExpertId> hottest;          // of earlier runs, to read from hottest_first on
  size_t hottest_first = 0;
  uint64_t in_flight_limit;
  uint64_t started_ahead = 0;  // bytes, since the last call of next()
  std::vector<LayerStats> layer_stats;

  // The living request.
  bool request_alive = false;
  uint32_t layer = 0;
  std::vector<uint32_t> demanded;   // numbers, by position
  std::vector<uint32_t> asked_for;  // the experts that they stand for
  std::vector<uint32_t> ready;      // positions, pinned; handed out from ready_first on
  size_t ready_first = 0;
  std::vector<uint32_t> to_load;  // positions, from to_load_first on
  size_t to_load_first = 0;
  bool waits_for_room = false;      // the next of them
  size_t loading = 0;               // wanted loads on their way
  std::vector<ReadyExpert> in_use;  // handed out last, pinned
  std::exception_ptr failure;       // found by pump

  void demand(uint32_t position, const ExpertDemand& wanted) {
    const ExpertId id{layer, wanted.expert};
    cache.record_use(id, static_cast<double>(wanted.share));
    demanded.push_back(wanted.expert);
    asked_for.push_back(layout.expert_of(wanted.expert));
    ++stats().demands;
    if (phase != Phase::kLoading) ++layer_stats[layer].demands;
    if (cache.state(id) != ExpertCache::State::kAbsent) count_ahead(id, stats().useful_bytes);
    switch (cache.state(id)) {
      case ExpertCache::State::kResident:
        ++stats().hits;
        if (phase != Phase::kLoading) ++layer_stats[layer].hits;
        cache.pin(id);
        ready.push_back(position);
        return;
      case ExpertCache::State::kLoading:  // ahead, or left by a request that was dropped
        load_of(id).wanted = true;
        load_of(id).hottest = false;
        ++loading;
        return;
      case ExpertCache::State::kAbsent:
        to_load.push_back(position);
        return;
    }
  }

  // Bytes of reads that may be under way. A batch computes for so long between two looks at the
  // device that a deep queue is needed to keep it busy.
  uint64_t most_in_flight() const noexcept {
    return phase == Phase::kDecode ? in_flight_limit
                                   : std::max(kBatchInFlightBytes, in_flight_limit);
  }

  // Starts loads while there is room for them and the device gains from more, those that are waited
  // for first. What is in flight arrives about together, so the fewer are, the earlier the first.
  void start_loads() {
    waits_for_room = false;
    for (; to_load_first < to_load.size(); ++to_load_first) {
      if (in_flight >= most_in_flight()) return;
      const ExpertId id{layer, demanded[to_load[to_load_first]]};
      if (!start(id, true)) {
        waits_for_room = true;
        return;
      }
      ++loading;
    }
    read_ahead();
  }

  // What is read ahead between two calls of next() is bounded too: it would evict what was read
  // ahead a moment before.
  void read_ahead() {
    const uint64_t part = cache.pool_bytes() / (keep ? kAheadShare : kUnkeptAheadShare);
    while (in_flight < most_in_flight() && ahead_in_flight < part && started_ahead < part) {
      const std::optional<ExpertId> id = ahead.take();
      if (!id) return read_hottest();
      if (cache.state(*id) != ExpertCache::State::kAbsent) continue;
      if (!start(*id, false)) return;
      const uint64_t bytes = slot_bytes(*id);
      ahead_in_flight += bytes;
      started_ahead += bytes;
      stats().ahead_bytes += bytes;
    }
  }

  // With nothing better to do: what earlier runs used most, while that evicts nothing.
  void read_hottest() {
    for (; hottest_first < hottest.size() && in_flight < in_flight_limit; ++hottest_first) {
      const ExpertId id = hottest[hottest_first];
      if (cache.state(id) != ExpertCache::State::kAbsent) continue;
      // Where this one finds no room, a smaller one may.
      if (!cache.has_room(slot_bytes(id)) || !start(id, false)) continue;
      load_of(id).ahead = false;  // nobody guessed it
      load_of(id).hottest = true;
    }
  }

  void arrive(const CompletedRead& read) {
    const std::optional<Ended> ended = finish(read);
    if (!ended || !ended->was_wanted) return;
    --loading;
    if (ended->error != 0) fail(ended->id, ended->error);
    for (uint32_t position = 0; position < demanded.size(); ++position) {
      if (demanded[position] == ended->id.expert) return ready.push_back(position);
    }
  }

  // Takes what has arrived; with kAtLeastOne it sleeps for the first and counts the time.
  void take_arrivals(Wait wait) {
    if (wait == Wait::kAtLeastOne) {
      const Clock::time_point start = Clock::now();
      const std::optional<CompletedRead> read = queue.next(wait);
      stats().stall_ns += static_cast<uint64_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
      EM_CHECK(read.has_value());
      arrive(*read);
    }
    while (const std::optional<CompletedRead> read = queue.next(Wait::kNo)) arrive(*read);
  }

  // Keeps the device busy while the owner computes. An error is left to the next call of next().
  void pump() noexcept {
    if (queue.outstanding_ranges() == 0) return;
    try {
      const size_t before = queue.outstanding_ranges();
      take_arrivals(Wait::kNo);
      if (queue.outstanding_ranges() != before) start_loads();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }

  // Guesses of a step that ended early.
  void forget_guesses() noexcept {
    for (uint32_t l = 0; l < layout.num_layers(); ++l) {
      if (!ahead.guessed(l).empty()) cache.clear_protection(l);
    }
    ahead.forget();
  }

  // A part keeps its pin until down has been used as well.
  void give_up_last() noexcept {
    for (const ReadyExpert& expert : in_use) {
      if (expert.part != ExpertPart::kHidden) release(expert.id);
    }
    in_use.clear();
  }

  std::span<const ReadyExpert> next(Wait wait) {
    give_up_last();
    started_ahead = 0;
    if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
    take_arrivals(Wait::kNo);
    start_loads();
    while (ready_first == ready.size() && wait == Wait::kAtLeastOne) {
      if (to_load_first == to_load.size() && loading == 0) break;
      if (hand_out_parts()) return in_use;
      // Something is on its way: nothing is pinned now, so a load that found no room waits for one
      // that a dropped request left behind.
      take_arrivals(Wait::kAtLeastOne);
      start_loads();
    }
    for (size_t left = hand_out_count(); left > 0; --left) hand_out_rest(ready[ready_first++]);
    return in_use;
  }

  // Everything that is ready; but while loads wait for room, a part, because what is handed out
  // keeps its slot until the next call and nothing would be read meanwhile.
  size_t hand_out_count() const noexcept {
    constexpr size_t kParts = 4;
    const size_t count = ready.size() - ready_first;
    return waits_for_room ? ceil_div(count, kParts) : count;
  }

  // Of experts that lack down only: gate and up. False when there are none.
  bool hand_out_parts() {
    for (uint32_t position = 0; position < demanded.size(); ++position) {
      const ExpertId id{layer, demanded[position]};
      ExpertLoad& load = load_of(id);
      if (load.split || !load.wanted || !lacks_down_only(id)) continue;
      hand_out(position, ExpertPart::kHidden);
      load.split = true;
    }
    return !in_use.empty();
  }

  // What the request has not had of an expert.
  void hand_out_rest(uint32_t position) {
    ExpertLoad& load = load_of({layer, demanded[position]});
    hand_out(position, load.split ? ExpertPart::kDown : ExpertPart::kWhole);
    load.split = false;
  }

  void hand_out(uint32_t position, ExpertPart part) {
    ReadyExpert expert;
    expert.part = part;
    expert.position = position;
    expert.id = {layer, demanded[position]};
    expert.expert = asked_for[position];
    expert.regrouped = load_of(expert.id).regrouped;
    const ExpertPlace& place = layout.place(expert.id.layer, expert.id.expert);
    std::byte* slot = pool.data() + cache.slot_offset(expert.id);
    for (size_t i = 0; i < kNumExpertMatrices; ++i) {
      const ExpertMatrixPlace& from = place.matrices[i];
      if (!from.present) continue;
      expert.matrices[i] = {slot + from.slot_offset, from.type, from.rows, from.columns,
                            from.scale};
    }
    in_use.push_back(expert);
  }

  void end_request() noexcept {
    give_up_last();
    for (; ready_first < ready.size(); ++ready_first) {
      release({layer, demanded[ready[ready_first]]});
    }
    for (const uint32_t expert : demanded) {
      load_of({layer, expert}).wanted = false;
      load_of({layer, expert}).split = false;
    }
    if (!keep) drop_unused(layer);
    demanded.clear();
    asked_for.clear();
    ready.clear();
    ready_first = 0;
    to_load.clear();
    to_load_first = 0;
    loading = 0;
    failure = nullptr;
    request_alive = false;
  }
};

ExpertStore::ExpertStore(ExpertLayout layout, std::span<const File> files,
                         std::unique_ptr<AsyncReader> reader, const ExpertStoreOptions& options) {
  if (options.pool_bytes < min_pool_bytes(layout)) {
    throw Error(ErrorCode::kBudget, "an expert pool of " + format_bytes(options.pool_bytes) +
                                        " is too small; two experts take " +
                                        format_bytes(min_pool_bytes(layout)));
  }
  impl_ = std::make_unique<Impl>(std::move(layout), files, std::move(reader), options);
}

ExpertStore::~ExpertStore() = default;

uint64_t ExpertStore::min_pool_bytes(const ExpertLayout& layout) noexcept {
  return 2 * layout.max_slot_bytes();
}

uint64_t ExpertStore::max_pool_bytes() const noexcept {
  return impl_->pool.bytes();
}

void ExpertStore::set_pool_bytes(uint64_t bytes) {
  Impl& store = *impl_;
  EM_CHECK(!store.request_alive);
  while (store.queue.outstanding_ranges() > 0) store.take_arrivals(Wait::kAtLeastOne);
  const uint64_t alignment = std::max<uint64_t>(store.layout.alignment(), 64);
  const uint64_t wanted =
      std::clamp(align_down(bytes, alignment), min_pool_bytes(store.layout), max_pool_bytes());
  for (const SlotMove& move : store.cache.resize(wanted)) {
    std::memmove(store.pool.data() + move.to, store.pool.data() + move.from, move.bytes);
  }
  store.pool.limit_to(wanted);
}

void ExpertStore::begin_step(Phase phase) noexcept {
  impl_->count_reads();
  impl_->phase = phase;
  impl_->forget_guesses();
  impl_->cache.begin_step();
  impl_->step_start = Clock::now();
}

void ExpertStore::end_step() noexcept {
  Impl& store = *impl_;
  // Until something is evicted the pool fills up, and every step is faster than the one before.
  const bool counts = store.preload == PreloadPolicy::kAuto && store.phase == Phase::kDecode &&
                      store.cache.evictions() > 0;
  const std::chrono::duration<double> seconds = Clock::now() - store.step_start;
  store.trial.end_step(seconds.count(), counts);
}

bool ExpertStore::wants_guesses() const noexcept {
  const Impl& store = *impl_;
  if (store.cache.pool_bytes() >= store.layout.total_slot_bytes()) return false;
  switch (store.preload) {
    case PreloadPolicy::kNone:
      return false;
    case PreloadPolicy::kAuto:
      return store.phase == Phase::kPrefill || (store.auto_in_decode && store.trial.is_on());
    case PreloadPolicy::kAlways:
      return true;
  }
  return false;
}

void ExpertStore::guess(uint32_t layer, uint32_t kind, std::span<const uint32_t> experts) {
  Impl& store = *impl_;
  // What a batch of many rows will ask for is most of a layer: too much to keep.
  const bool keep = kind != ReadAhead::kBatch;
  store.cache.clear_protection(layer);
  store.guesses.clear();
  for (const uint32_t expert : experts) {
    if (expert >= store.layout.num_experts()) continue;
    const ExpertId id{layer, expert};
    store.guesses.push_back({expert, store.cache.state(id) == ExpertCache::State::kAbsent});
    if (keep) store.cache.protect(id);
  }
  store.ahead.guess(layer, kind, store.guesses);
}

void ExpertStore::read_ahead() {
  impl_->take_arrivals(Wait::kNo);
  impl_->read_ahead();
}

void ExpertStore::pump() noexcept {
  impl_->pump();
}

ExpertStore::Request ExpertStore::request(uint32_t layer, std::span<const ExpertDemand> demands) {
  Impl& store = *impl_;
  EM_CHECK(!store.request_alive);
  store.request_alive = true;
  store.failure = nullptr;
  store.started_ahead = 0;
  Request request(&store);
  store.layer = layer;
  store.cache.set_current_layer(layer);
  for (uint32_t position = 0; position < demands.size(); ++position) {
    store.demand(position, demands[position]);
  }
  store.ahead.settle(layer, store.asked_for);
  store.cache.clear_protection(layer);
  store.start_loads();
  return request;
}

ExpertStore::Request::Request(Request&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)) {}

ExpertStore::Request::~Request() {
  if (store_ != nullptr) store_->end_request();
}

std::span<const ReadyExpert> ExpertStore::Request::next(Wait wait) {
  return store_->next(wait);
}

void ExpertStore::mark_regrouped(ExpertId id) noexcept {
  impl_->load_of(id).regrouped = true;
}

Sections ExpertStore::learned() const {
  const auto trust = std::as_bytes(impl_->ahead.trusted());
  const double found = impl_->trial.ratio();
  const auto ratio = std::as_bytes(std::span(&found, 1));
  return {{kPopularity, impl_->cache.save_popularity()},
          {kTrust, {trust.begin(), trust.end()}},
          {kTrialRatio, {ratio.begin(), ratio.end()}}};
}

void ExpertStore::learn(const Sections& sections) {
  Impl& store = *impl_;
  const auto section = [&](const char* name) -> std::span<const std::byte> {
    const auto found = sections.find(name);
    if (found == sections.end()) return {};
    return found->second;
  };
  if (store.cache.load_popularity(section(kPopularity))) {
    store.hottest = hottest_experts(store.cache, store.layout);
    store.hottest_first = 0;
  }
  const std::span<const std::byte> trust = section(kTrust);
  std::vector<float> shares(trust.size() / sizeof(float));
  if (!shares.empty()) std::memcpy(shares.data(), trust.data(), shares.size() * sizeof(float));
  store.ahead.restore_trust(shares);
  double found = 0;
  const std::span<const std::byte> ratio = section(kTrialRatio);
  if (ratio.size() == sizeof(found)) std::memcpy(&found, ratio.data(), sizeof(found));
  store.trial.restore(found);
}

bool ExpertStore::warm_up() {
  Impl& store = *impl_;
  EM_CHECK(!store.request_alive);
  store.read_hottest();
  if (store.queue.outstanding_ranges() == 0) return false;
  if (const std::optional<CompletedRead> read = store.queue.next(Wait::kAtLeastOne)) {
    store.arrive(*read);
  }
  return true;
}

ExpertStats ExpertStore::stats(Phase phase) const noexcept {
  impl_->count_reads();
  impl_->count_evicted_ahead();
  return impl_->phases[static_cast<size_t>(phase)];
}

ExpertStats ExpertStore::stats() const noexcept {
  ExpertStats sum = stats(Phase::kPrefill);
  const ExpertStats decode = stats(Phase::kDecode);
  for (const auto field : kStatFields) sum.*field += decode.*field;
  return sum;
}

const ReadAheadStats& ExpertStore::read_ahead_stats() const noexcept {
  return impl_->ahead.stats();
}

const ReadStats& ExpertStore::read_stats() const noexcept {
  return impl_->queue.stats();
}
LayerStats ExpertStore::layer_stats(uint32_t layer) const noexcept {
  return impl_->layer_stats[layer];
}
const ExpertLayout& ExpertStore::layout() const noexcept {
  return impl_->layout;
}
const ExpertCache& ExpertStore::cache() const noexcept {
  return impl_->cache;
}
std::string_view ExpertStore::backend() const noexcept {
  return impl_->queue.backend();
}

}  // namespace edgemoe
