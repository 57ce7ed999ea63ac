#include "experts/expert_loads.h"

#include <cerrno>

#include "base/error.h"
#include "base/fast_hash.h"
#include "base/units.h"
#include "weights/checksums.h"

namespace edgemoe {
namespace {

// Reads of one expert have neighbouring tags.
constexpr uint64_t kTagsPerExpert = 4;
static_assert(kTagsPerExpert >= kNumExpertMatrices);

// Of a cut read the second has tag 1. Below these bytes a device takes as long for a part as for
// the whole.
constexpr uint64_t kLeastCutBytes = 64 * kKiB;

// Addresses for the largest pool, so that it can grow: they take no memory until they are used.
// Only for the pool of now where they would count. Errors: kBudget when the system refuses the
// pool.
AlignedBuffer map_pool(uint64_t pool_bytes, uint64_t most_bytes) {
  AlignedBuffer pool(pool_bytes);
  if (most_bytes <= pool_bytes || !AlignedBuffer::addresses_are_free()) return pool;
  try {
    pool = AlignedBuffer(most_bytes, AlignedBuffer::Promise::kNotNeeded);
    pool.limit_to(pool_bytes);
  } catch (const Error&) {
    // More than the addresses of this machine.
  }
  return pool;
}

}  // namespace

ExpertLoads::ExpertLoads(ExpertLayout expert_layout, std::span<const File> model_files,
                         std::unique_ptr<AsyncReader> reader, const ExpertStoreOptions& options)
    : layout(std::move(expert_layout)),
      files(model_files),
      pool(map_pool(options.pool_bytes, options.most_pool_bytes)),
      cache(layout.num_layers(), layout.num_experts(), options.pool_bytes, options.eviction,
            layout.has_low_copies()),
      keep(options.keep),
      checksums(options.checksums),
      low_checksums(options.low_checksums),
      loads(size_t{layout.num_layers()} * layout.numbers_per_layer()),
      queue(std::move(reader)) {}

// A layer that decodes and waits for an expert uses gate and up while down is on its way. Where the
// user regroups, or the whole is compared with a checksum, it comes whole; a batch has enough to
// do.
bool ExpertLoads::should_cut(const ExpertPlace& place, bool wanted) const noexcept {
  if (!wanted || phase != Phase::kDecode || place.cut == 0) return false;
  if (!layout.is_regrouped() || !checksums.empty()) return false;
  const ExpertRange& range = place.ranges[0];
  return range.offset + range.bytes - place.cut >= kLeastCutBytes;
}

void ExpertLoads::submit(const ExpertRange& range, uint64_t begin, uint64_t end, std::byte* slot,
                         uint64_t tag) {
  const File& file = files[range.shard];
  // Where the slot's window begins; that of a shard on another device may begin later.
  const uint64_t window = align_down(range.offset, layout.alignment());
  std::byte* to = slot + range.slot_offset + (align_down(begin, file.alignment()) - window);
  queue.submit({&file, begin, end - begin, to, tag});
}

bool ExpertLoads::lacks_down_only(ExpertId id) noexcept {
  const ExpertLoad& load = load_of(id);
  return load.cut && load.reads_left == 1 && !load.down_arrived && load.error == 0;
}

void ExpertLoads::drop_low_copy(ExpertId id) noexcept {
  const ExpertId low{id.layer, layout.low_copy_of(id.layer, layout.expert_of(id.expert))};
  if (low == id || cache.state(low) != ExpertCache::State::kResident) return;
  if (cache.pins(low) != 0) return;
  cache.drop(low);
  ++counted_evictions;  // nobody needed its place
}

bool ExpertLoads::start(ExpertId id, bool wanted) {
  if (layout.has_low_copies()) drop_low_copy(id);
  const ExpertPlace& place = layout.place(id.layer, id.expert);
  const std::optional<uint64_t> slot = cache.reserve(id, place.slot_bytes);
  if (!slot) return false;
  count_ahead(id, stats().wasted_bytes);  // what it was read for before never happened
  ExpertLoad& load = load_of(id);
  load = {};
  load.cut = should_cut(place, wanted);
  load.num_reads = static_cast<uint8_t>(place.num_ranges + (load.cut ? 1 : 0));
  load.reads_left = load.num_reads;
  load.wanted = wanted;
  load.ahead = !wanted;
  load.regrouped = layout.is_regrouped();
  in_flight += place.slot_bytes;
  const uint64_t tag =
      (uint64_t{id.layer} * layout.numbers_per_layer() + id.expert) * kTagsPerExpert;
  std::byte* to = pool.data() + *slot;
  for (uint32_t i = 0; i < place.num_ranges; ++i) {
    const ExpertRange& range = place.ranges[i];
    const uint64_t end = range.offset + range.bytes;
    submit(range, range.offset, load.cut ? place.cut : end, to, tag + i);
    if (load.cut) submit(range, place.cut, end, to, tag + 1);
  }
  return true;
}

bool ExpertLoads::is_sound(ExpertId id) const noexcept {
  FastHash hash;
  const std::byte* slot = pool.data() + cache.slot_offset(id);
  for (const ExpertMatrixPlace& matrix : layout.place(id.layer, id.expert).matrices) {
    if (!matrix.present) continue;
    hash.add({slot + matrix.slot_offset,
              static_cast<size_t>(matrix.rows * row_bytes(matrix.type, matrix.columns))});
  }
  const auto& sums = layout.is_low_copy(id.expert) ? low_checksums : checksums;
  return hash.value() ==
         sums[size_t{id.layer} * layout.num_experts() + layout.expert_of(id.expert)];
}

std::optional<ExpertLoads::Ended> ExpertLoads::finish(const CompletedRead& read) {
  const uint64_t index = read.tag / kTagsPerExpert;
  const ExpertId id{static_cast<uint32_t>(index / layout.numbers_per_layer()),
                    static_cast<uint32_t>(index % layout.numbers_per_layer())};
  const uint32_t number = static_cast<uint32_t>(read.tag % kTagsPerExpert);
  ExpertLoad& load = load_of(id);
  ExpertStats& counts = load.hottest ? phases[static_cast<size_t>(Phase::kLoading)] : stats();
  counts.bytes_read += read.bytes;
  if (read.error != 0 && load.error == 0) {
    load.error = read.error;
    load.failed_range = load.cut ? 0 : number;
  }
  load.down_arrived |= load.cut && number == 1;
  // Its part of the slot, so that the next expert follows before the last part has arrived.
  const uint64_t bytes = slot_bytes(id);
  in_flight -= bytes * load.reads_left / load.num_reads;
  --load.reads_left;
  in_flight += bytes * load.reads_left / load.num_reads;
  if (load.reads_left > 0) return std::nullopt;
  if (load.ahead) ahead_in_flight -= bytes;
  if (load.error == 0 && !checksums.empty() && !is_sound(id)) {
    load.damaged = true;
    load.error = EBADMSG;
  }
  const Ended ended{id, load.wanted, load.error};
  load.wanted = false;
  if (ended.error != 0) {
    cache.abandon_load(id);
    count_ahead(id, stats().wasted_bytes);
  } else {
    cache.finish_load(id);
    if (load.ahead) {
      cache.unpin(id);
    } else if (!ended.was_wanted) {
      release(id);
    }
  }
  return ended;
}

void ExpertLoads::release(ExpertId id) noexcept {
  cache.unpin(id);
  if (!keep) cache.drop(id);
}

void ExpertLoads::drop_unused(uint32_t layer) noexcept {
  for (uint32_t expert = 0; expert < layout.numbers_per_layer(); ++expert) {
    const ExpertId id{layer, expert};
    count_ahead(id, stats().wasted_bytes);
    if (cache.state(id) == ExpertCache::State::kResident) cache.drop(id);
  }
}

void ExpertLoads::count_ahead(ExpertId id, uint64_t& bytes) noexcept {
  ExpertLoad& load = load_of(id);
  if (!load.ahead) return;
  load.ahead = false;
  bytes += slot_bytes(id);
  if (load.reads_left > 0) ahead_in_flight -= slot_bytes(id);
}

void ExpertLoads::count_reads() noexcept {
  const uint64_t busy_ns = queue.stats().busy_ns;
  stats().busy_ns += busy_ns - counted_busy_ns;
  stats().evictions += cache.evictions() - counted_evictions;
  counted_busy_ns = busy_ns;
  counted_evictions = cache.evictions();
}

void ExpertLoads::count_evicted_ahead() noexcept {
  for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
    for (uint32_t expert = 0; expert < layout.numbers_per_layer(); ++expert) {
      const ExpertId id{layer, expert};
      if (cache.state(id) == ExpertCache::State::kAbsent) count_ahead(id, stats().wasted_bytes);
    }
  }
}

void ExpertLoads::fail(ExpertId id, int error) {
  const ExpertLoad& load = load_of(id);
  const ExpertRange& range = layout.place(id.layer, id.expert).ranges[load.failed_range];
  const uint32_t expert = layout.expert_of(id.expert);
  const bool low_copy = layout.is_low_copy(id.expert);
  if (load.damaged) {
    throw Error(ErrorCode::kFormat,
                describe(DamagedPart{files[range.shard].path(), "", id.layer, expert, low_copy}) +
                    "; the model stays loaded");
  }
  throw Error(
      ErrorCode::kIo,
      files[range.shard].path() + ": reading " + (low_copy ? "the low copy of " : "") + "expert " +
          std::to_string(expert) + " of layer " + std::to_string(id.layer) + " at offset " +
          std::to_string(range.offset) + " failed: " +
          (error == ENODATA
               ? "the file ended early; was it truncated or replaced? The model stays loaded"
               : errno_text(error) + "; the model stays loaded, try again or check the device"));
}

}  // namespace edgemoe
