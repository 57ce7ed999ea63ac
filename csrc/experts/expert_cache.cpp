#include "experts/expert_cache.h"

#include <algorithm>

#include "base/error.h"

namespace edgemoe {
namespace {

// More than any sum of keep values, and small enough to leave their differences.
constexpr double kProtection = 1e9;

}  // namespace

ExpertCache::ExpertCache(uint32_t num_layers, uint32_t num_experts, uint64_t pool_bytes,
                         EvictionPolicy policy)
    : num_experts_(num_experts),
      pool_bytes_(pool_bytes),
      policy_(policy),
      entries_(size_t{num_layers} * num_experts) {
  context_.num_layers = std::max(num_layers, 1u);
  // Between any two slots there is at most one gap, so this never grows.
  slots_.reserve(2 * entries_.size() + 2);
  values_.reserve(2 * entries_.size() + 2);
  slots_.push_back({0, pool_bytes, false, {}});
}

ExpertCache::Entry& ExpertCache::entry(ExpertId id) noexcept {
  return entries_[size_t{id.layer} * num_experts_ + id.expert];
}
const ExpertCache::Entry& ExpertCache::entry(ExpertId id) const noexcept {
  return entries_[size_t{id.layer} * num_experts_ + id.expert];
}

ExpertCache::State ExpertCache::state(ExpertId id) const noexcept {
  return entry(id).state;
}
uint64_t ExpertCache::slot_offset(ExpertId id) const noexcept {
  return entry(id).slot_offset;
}
uint32_t ExpertCache::pins(ExpertId id) const noexcept {
  return entry(id).pins;
}
const ExpertHistory& ExpertCache::history(ExpertId id) const noexcept {
  return entry(id).history;
}

bool ExpertCache::is_movable(const Slot& slot) const noexcept {
  if (!slot.occupied) return true;
  const Entry& held = entry(slot.id);
  return held.state == State::kResident && held.pins == 0;
}

double ExpertCache::value_of(const Slot& slot) const noexcept {
  if (!slot.occupied) return 0;
  const Entry& held = entry(slot.id);
  const double value = keep_value(policy_, held.history, slot.id.layer, context_);
  return held.is_protected ? value + kProtection : value;
}

std::optional<ExpertCache::Run> ExpertCache::smallest_gap(uint64_t bytes) const noexcept {
  // A full pool of equal slots has no room at all: nothing to look for.
  if (pool_bytes_ - used_bytes_ < bytes) return std::nullopt;
  std::optional<Run> best;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.occupied || slot.bytes < bytes) continue;
    if (!best || slot.bytes < best->bytes) best = Run{i, i + 1, slot.bytes, 0};
  }
  return best;
}

// Runs are a slot or a few long: every start is tried, and grown to the size that is needed. Bytes
// that become free are bytes lost until something fits there, so they cost what the pool holds on
// average; gaps that are filled gain as much. With slots of one size that changes nothing.
std::optional<ExpertCache::Run> ExpertCache::least_valuable_run(uint64_t bytes) noexcept {
  values_.clear();
  double total = 0;
  for (const Slot& slot : slots_) {
    values_.push_back(value_of(slot));
    total += values_.back();
  }
  const double value_per_byte = total / static_cast<double>(pool_bytes_);
  std::optional<Run> best;
  for (size_t first = 0; first < slots_.size(); ++first) {
    Run run{first, first, 0, 0};
    double evicted_bytes = 0;
    while (run.bytes < bytes && run.last < slots_.size() && is_movable(slots_[run.last])) {
      const Slot& slot = slots_[run.last];
      run.bytes += slot.bytes;
      run.value += values_[run.last];
      if (slot.occupied) evicted_bytes += static_cast<double>(slot.bytes);
      ++run.last;
    }
    if (run.bytes < bytes) continue;
    run.value += value_per_byte * (evicted_bytes - static_cast<double>(bytes));
    if (!best || run.value < best->value) best = run;
  }
  return best;
}

void ExpertCache::evict(const Run& run) noexcept {
  for (size_t i = run.first; i < run.last; ++i) {
    if (!slots_[i].occupied) continue;
    entry(slots_[i].id).state = State::kAbsent;
    used_bytes_ -= slots_[i].bytes;
    ++evictions_;
  }
}

// Replaces the run by one slot and, where bytes are left, a gap that takes in the gap behind it.
void ExpertCache::occupy(const Run& run, ExpertId id, uint64_t bytes) noexcept {
  const uint64_t offset = slots_[run.first].offset;
  uint64_t rest = run.bytes - bytes;
  size_t last = run.last;
  if (rest > 0 && last < slots_.size() && !slots_[last].occupied) rest += slots_[last++].bytes;
  const size_t needed = rest > 0 ? 2 : 1;
  const size_t present = last - run.first;
  const auto at = slots_.begin() + static_cast<ptrdiff_t>(run.first);
  if (present > needed) {
    slots_.erase(at, at + static_cast<ptrdiff_t>(present - needed));
  } else if (present < needed) {
    slots_.insert(at, Slot{});
  }
  slots_[run.first] = {offset, bytes, true, id};
  if (rest > 0) slots_[run.first + 1] = {offset + bytes, rest, false, {}};
  used_bytes_ += bytes;
}

std::optional<uint64_t> ExpertCache::reserve(ExpertId id, uint64_t bytes) {
  EM_ASSERT(entry(id).state == State::kAbsent && bytes > 0);
  std::optional<Run> run = smallest_gap(bytes);
  if (!run) run = least_valuable_run(bytes);
  if (!run) return std::nullopt;
  evict(*run);
  occupy(*run, id, bytes);
  Entry& reserved = entry(id);
  reserved.state = State::kLoading;
  reserved.pins = 1;
  reserved.slot_offset = slots_[run->first].offset;
  reserved.history.loaded = context_.tick;
  return reserved.slot_offset;
}

void ExpertCache::finish_load(ExpertId id) noexcept {
  entry(id).state = State::kResident;
}

size_t ExpertCache::slot_index(uint64_t offset) const noexcept {
  const auto found =
      std::lower_bound(slots_.begin(), slots_.end(), offset,
                       [](const Slot& slot, uint64_t value) { return slot.offset < value; });
  return static_cast<size_t>(found - slots_.begin());
}

void ExpertCache::abandon_load(ExpertId id) noexcept {
  Entry& abandoned = entry(id);
  size_t index = slot_index(abandoned.slot_offset);
  abandoned.state = State::kAbsent;
  abandoned.pins = 0;
  slots_[index].occupied = false;
  used_bytes_ -= slots_[index].bytes;
  // Gaps do not stay side by side.
  const auto join_with_next = [this](size_t at) {
    slots_[at].bytes += slots_[at + 1].bytes;
    slots_.erase(slots_.begin() + static_cast<ptrdiff_t>(at) + 1);
  };
  if (index + 1 < slots_.size() && !slots_[index + 1].occupied) join_with_next(index);
  if (index > 0 && !slots_[index - 1].occupied) join_with_next(index - 1);
}

void ExpertCache::pin(ExpertId id) noexcept {
  ++entry(id).pins;
}

void ExpertCache::unpin(ExpertId id) noexcept {
  EM_ASSERT(entry(id).pins > 0);
  --entry(id).pins;
}

void ExpertCache::protect(ExpertId id) noexcept {
  entry(id).is_protected = true;
}

void ExpertCache::clear_protection(uint32_t layer) noexcept {
  const auto first = entries_.begin() + static_cast<ptrdiff_t>(size_t{layer} * num_experts_);
  std::for_each(first, first + num_experts_, [](Entry& one) { one.is_protected = false; });
}

void ExpertCache::begin_step() noexcept {
  for (Entry& one : entries_) one.history.frequency *= kFrequencyDecay;
}

void ExpertCache::set_current_layer(uint32_t layer) noexcept {
  context_.current_layer = layer;
}

void ExpertCache::record_use(ExpertId id, double share) noexcept {
  ExpertHistory& history = entry(id).history;
  history.frequency += share;
  ++history.uses;
  history.last_use = ++context_.tick;
}

void ExpertCache::restore_frequency(ExpertId id, double frequency) noexcept {
  entry(id).history.frequency = frequency;
}

size_t ExpertCache::num_resident() const noexcept {
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(), [](const Entry& one) {
    return one.state == State::kResident;
  }));
}

}  // namespace edgemoe
