#include "experts/expert_store.h"

#include <chrono>

#include "base/error.h"
#include "base/units.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

// Ranges of one expert have neighbouring tags.
constexpr uint64_t kTagsPerExpert = 4;
static_assert(kTagsPerExpert >= kNumExpertMatrices);

// A load on its way, and what the slot holds afterwards.
struct Load {
  uint8_t ranges_left = 0;
  bool wanted = false;  // by the living request; else it finishes into the cache
  bool regrouped = false;
  int error = 0;
  uint32_t failed_range = 0;
};

}  // namespace

struct ExpertStore::Impl {
  Impl(ExpertLayout expert_layout, std::span<const File> model_files,
       std::unique_ptr<AsyncReader> reader, const ExpertStoreOptions& options)
      : layout(std::move(expert_layout)),
        files(model_files),
        pool(options.pool_bytes),
        cache(layout.num_layers(), layout.num_experts(), options.pool_bytes, options.eviction),
        loads(size_t{layout.num_layers()} * layout.num_experts()),
        layer_stats(layout.num_layers()),
        queue(std::move(reader)) {
    demanded.reserve(layout.num_experts());
    ready.reserve(layout.num_experts());
    to_load.reserve(layout.num_experts());
    in_use.reserve(layout.num_experts());
  }

  ExpertLayout layout;
  std::span<const File> files;
  AlignedBuffer pool;
  ExpertCache cache;
  std::vector<Load> loads;  // layer-major
  std::vector<LayerStats> layer_stats;
  ExpertStats stats;

  // The living request.
  bool request_alive = false;
  uint32_t layer = 0;
  std::vector<uint32_t> demanded;  // experts, by position
  std::vector<uint32_t> ready;     // positions, pinned; handed out from ready_first on
  size_t ready_first = 0;
  std::vector<uint32_t> to_load;  // positions, from to_load_first on
  size_t to_load_first = 0;
  size_t loading = 0;               // wanted loads on their way
  std::vector<ReadyExpert> in_use;  // handed out last, pinned

  ReadQueue queue;  // last: its destructor waits for reads into the pool

  Load& load_of(ExpertId id) noexcept {
    return loads[size_t{id.layer} * layout.num_experts() + id.expert];
  }

  void demand(uint32_t position, const ExpertDemand& wanted) {
    const ExpertId id{layer, wanted.expert};
    cache.record_use(id, static_cast<double>(wanted.share));
    demanded.push_back(wanted.expert);
    ++stats.demands;
    ++layer_stats[layer].demands;
    switch (cache.state(id)) {
      case ExpertCache::State::kResident:
        ++stats.hits;
        ++layer_stats[layer].hits;
        cache.pin(id);
        ready.push_back(position);
        return;
      case ExpertCache::State::kLoading:  // left by a request that was dropped
        load_of(id).wanted = true;
        ++loading;
        return;
      case ExpertCache::State::kAbsent:
        to_load.push_back(position);
        return;
    }
  }

  // Starts loads while there is room for them.
  void start_loads() {
    for (; to_load_first < to_load.size(); ++to_load_first) {
      const ExpertId id{layer, demanded[to_load[to_load_first]]};
      const ExpertPlace& place = layout.place(id.layer, id.expert);
      const std::optional<uint64_t> slot = cache.reserve(id, place.slot_bytes);
      if (!slot) return;
      load_of(id) = {static_cast<uint8_t>(place.num_ranges), true, false, 0, 0};
      ++loading;
      const uint64_t tag = (uint64_t{id.layer} * layout.num_experts() + id.expert) * kTagsPerExpert;
      for (uint32_t i = 0; i < place.num_ranges; ++i) {
        const ExpertRange& range = place.ranges[i];
        queue.submit({&files[range.shard], range.offset, range.bytes,
                      pool.data() + *slot + range.slot_offset, tag + i});
      }
    }
  }

  void finish(const CompletedRead& read) {
    const uint64_t index = read.tag / kTagsPerExpert;
    const ExpertId id{static_cast<uint32_t>(index / layout.num_experts()),
                      static_cast<uint32_t>(index % layout.num_experts())};
    Load& load = load_of(id);
    if (read.error != 0 && load.error == 0) {
      load.error = read.error;
      load.failed_range = static_cast<uint32_t>(read.tag % kTagsPerExpert);
    }
    if (--load.ranges_left > 0) return;
    if (load.wanted) --loading;
    if (load.error != 0) {
      cache.abandon_load(id);
      if (load.wanted) fail(id, load);
      return;
    }
    cache.finish_load(id);
    if (!load.wanted) {
      cache.unpin(id);
      return;
    }
    load.wanted = false;
    for (uint32_t position = 0; position < demanded.size(); ++position) {
      if (demanded[position] == id.expert) return ready.push_back(position);
    }
  }

  [[noreturn]] void fail(ExpertId id, const Load& load) const {
    const ExpertRange& range = layout.place(id.layer, id.expert).ranges[load.failed_range];
    throw Error(ErrorCode::kIo,
                files[range.shard].path() + ": reading expert " + std::to_string(id.expert) +
                    " of layer " + std::to_string(id.layer) + " at offset " +
                    std::to_string(range.offset) + " failed: " + errno_text(load.error) +
                    "; the model stays loaded, try again or check the device");
  }

  // Takes what has arrived; with kAtLeastOne it sleeps for the first and counts the time.
  void take_arrivals(Wait wait) {
    if (wait == Wait::kAtLeastOne) {
      const Clock::time_point start = Clock::now();
      const std::optional<CompletedRead> read = queue.next(wait);
      stats.stall_ns += static_cast<uint64_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
      EM_CHECK(read.has_value());
      finish(*read);
    }
    while (const std::optional<CompletedRead> read = queue.next(Wait::kNo)) finish(*read);
  }

  void give_up_last() noexcept {
    for (const ReadyExpert& expert : in_use) cache.unpin(expert.id);
    in_use.clear();
  }

  std::span<const ReadyExpert> next(Wait wait) {
    give_up_last();
    take_arrivals(Wait::kNo);
    start_loads();
    while (ready_first == ready.size() && wait == Wait::kAtLeastOne) {
      if (to_load_first == to_load.size() && loading == 0) break;
      // Something is on its way: nothing is pinned now, so a load that found no room waits for one
      // that a dropped request left behind.
      take_arrivals(Wait::kAtLeastOne);
      start_loads();
    }
    for (size_t left = hand_out_count(); left > 0; --left) hand_out(ready[ready_first++]);
    return in_use;
  }

  // Everything that is ready; but while loads wait for room, a part, because what is handed out
  // keeps its slot until the next call and nothing would be read meanwhile.
  size_t hand_out_count() const noexcept {
    constexpr size_t kParts = 4;
    const size_t count = ready.size() - ready_first;
    return to_load_first == to_load.size() ? count : ceil_div(count, kParts);
  }

  void hand_out(uint32_t position) {
    ReadyExpert expert;
    expert.position = position;
    expert.id = {layer, demanded[position]};
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
      cache.unpin({layer, demanded[ready[ready_first]]});
    }
    for (const uint32_t expert : demanded) load_of({layer, expert}).wanted = false;
    demanded.clear();
    ready.clear();
    ready_first = 0;
    to_load.clear();
    to_load_first = 0;
    loading = 0;
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

void ExpertStore::begin_step() noexcept {
  impl_->cache.begin_step();
}

ExpertStore::Request ExpertStore::request(uint32_t layer, std::span<const ExpertDemand> demands) {
  Impl& store = *impl_;
  EM_CHECK(!store.request_alive);
  store.request_alive = true;
  Request request(&store);
  store.layer = layer;
  store.cache.set_current_layer(layer);
  for (uint32_t position = 0; position < demands.size(); ++position) {
    store.demand(position, demands[position]);
  }
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

ExpertStats ExpertStore::stats() const noexcept {
  ExpertStats stats = impl_->stats;
  stats.evictions = impl_->cache.evictions();
  stats.bytes_read = impl_->queue.stats().bytes;
  return stats;
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
