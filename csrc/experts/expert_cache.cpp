#include "experts/expert_cache.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace edgemoe {
namespace {

constexpr double kMustStay = std::numeric_limits<double>::infinity();

// What a free byte costs in units of what the pool's bytes hold on average. Experts of 12 sizes in
// pools of 0.4 to 5 tokens' demand lose at most 3.5 % of the pool with 1, 3.0 % with 2, 2.9 % with
// 3; least recently used ones 4.1, 3.1 and 2.3 %. Bytes read rise by 0.1 %, in the smallest pools
// by 1.
constexpr double kFreeByteCost = 3;

}  // namespace

ExpertCache::ExpertCache(uint32_t num_layers, uint32_t num_experts, uint64_t pool_bytes,
                         EvictionPolicy policy, bool low_copies)
    : num_experts_(num_experts),
      numbers_per_layer_(low_copies ? 2 * num_experts : num_experts),
      pool_bytes_(pool_bytes),
      policy_(policy),
      entries_(size_t{num_layers} * numbers_per_layer_),
      histories_(entries_.size()),
      popularity_(size_t{num_layers} * num_experts),
      worths_(entries_.size()),
      urgencies_(num_layers),
      has_run_(num_layers) {
  price_layers(0);
  // Between any two slots there is at most one gap, or two at the end of the pool, so this never
  // grows.
  slots_.reserve(2 * entries_.size() + 3);
  costs_.reserve(2 * entries_.size() + 3);
  slots_.push_back({0, pool_bytes, false, {}});
  costs_.push_back(0);
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
  return histories_[index_of(id)];
}

void ExpertCache::update_worth(ExpertId id) noexcept {
  const size_t index = index_of(id);
  ExpertHistory& history = histories_[index];
  history.popularity = popularity_[popularity_index(id)];
  worths_[index] = expert_worth(policy_, history, step_begin_);
}

void ExpertCache::update_worths() noexcept {
  for (uint32_t layer = 0; layer < urgencies_.size(); ++layer) {
    for (uint32_t number = 0; number < numbers_per_layer_; ++number) update_worth({layer, number});
  }
}

double ExpertCache::value_of(const Slot& slot) const noexcept {
  if (!slot.occupied) return 0;
  const size_t index = index_of(slot.id);
  const Entry& held = entries_[index];
  const bool spared = held.is_protected && costs_spare_protected_;
  if (held.state != State::kResident || held.pins > 0 || spared) return kMustStay;
  return worths_[index] * urgencies_[slot.id.layer];
}

// Bytes that become free are bytes lost until something fits there; with slots of one size that
// changes nothing.
double ExpertCache::byte_cost(const Slot& slot) const noexcept {
  return slot.occupied ? value_per_byte_ * static_cast<double>(slot.bytes) : 0;
}

void ExpertCache::price_slots(bool spare_protected) noexcept {
  costs_spare_protected_ = spare_protected;
  double total = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const double value = value_of(slots_[i]);
    costs_[i] = value + byte_cost(slots_[i]);
    if (value != kMustStay) total += value;
  }
  // For the next pricing: the average moves slowly, and this saves a second pass.
  value_per_byte_ = kFreeByteCost * total / static_cast<double>(pool_bytes_);
  costs_valid_ = true;
}

void ExpertCache::reprice(ExpertId id) noexcept {
  if (!costs_valid_) return;
  const size_t index = slot_index(entry(id).slot_offset);
  costs_[index] = value_of(slots_[index]) + byte_cost(slots_[index]);
}

std::optional<ExpertCache::Run> ExpertCache::smallest_gap(uint64_t bytes) const noexcept {
  // A full pool of equal slots has no room at all: nothing to look for.
  if (used_bytes_ + bytes > pool_bytes_) return std::nullopt;
  std::optional<Run> best;
  for (size_t i = 0, end = num_usable_slots(); i < end; ++i) {
    const Slot& slot = slots_[i];
    if (slot.occupied || slot.bytes < bytes) continue;
    if (!best || slot.bytes < best->bytes) best = Run{i, i + 1, slot.bytes};
  }
  return best;
}

// Runs are a slot or a few long: every start is tried, and grown to the size that is needed.
std::optional<ExpertCache::Run> ExpertCache::cheapest_run(uint64_t bytes,
                                                          double limit) const noexcept {
  std::optional<Run> best;
  double least = limit;
  const size_t end = num_usable_slots();
  for (size_t first = 0; first < end; ++first) {
    double cost = costs_[first];
    if (cost >= least) continue;  // costs are never negative: growing it does not help
    Run run{first, first + 1, slots_[first].bytes};
    while (run.bytes < bytes && run.last < end) {
      cost += costs_[run.last];
      run.bytes += slots_[run.last++].bytes;
    }
    if (run.bytes < bytes || cost >= least) continue;
    least = cost;
    best = run;
  }
  return best;
}

std::optional<ExpertCache::Run> ExpertCache::least_valuable_run(uint64_t bytes) noexcept {
  if (!costs_valid_) price_slots(true);
  if (const std::optional<Run> run = cheapest_run(bytes, kMustStay)) return run;
  if (!costs_spare_protected_) return std::nullopt;
  price_slots(false);
  const std::optional<Run> run = cheapest_run(bytes, kMustStay);
  costs_valid_ = false;  // the next request may find unprotected ones again
  return run;
}

void ExpertCache::evict(const Run& run) noexcept {
  for (size_t i = run.first; i < run.last; ++i) {
    if (!slots_[i].occupied) continue;
    entry(slots_[i].id).state = State::kAbsent;
    --num_resident_;
    used_bytes_ -= slots_[i].bytes;
    ++evictions_;
  }
}

// Replaces the run by one slot and, where bytes are left, a gap that takes in the gap behind it.
void ExpertCache::occupy(const Run& run, ExpertId id, uint64_t bytes) noexcept {
  const uint64_t offset = slots_[run.first].offset;
  uint64_t rest = run.bytes - bytes;
  size_t last = run.last;
  if (rest > 0 && last < num_usable_slots() && !slots_[last].occupied) {
    rest += slots_[last++].bytes;
  }
  const size_t needed = rest > 0 ? 2 : 1;
  const size_t present = last - run.first;
  const auto at = static_cast<ptrdiff_t>(run.first);
  if (present > needed) {
    const auto surplus = static_cast<ptrdiff_t>(present - needed);
    slots_.erase(slots_.begin() + at, slots_.begin() + at + surplus);
    costs_.erase(costs_.begin() + at, costs_.begin() + at + surplus);
  } else if (present < needed) {
    slots_.insert(slots_.begin() + at, Slot{});
    costs_.insert(costs_.begin() + at, 0.0);
  }
  slots_[run.first] = {offset, bytes, true, id};
  costs_[run.first] = kMustStay;  // it is loading
  if (rest > 0) {
    slots_[run.first + 1] = {offset + bytes, rest, false, {}};
    costs_[run.first + 1] = 0;
  }
  used_bytes_ += bytes;
}

bool ExpertCache::has_room(uint64_t bytes) const noexcept {
  return smallest_gap(bytes).has_value();
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
  histories_[index_of(id)].loaded = tick_;
  update_worth(id);
  return reserved.slot_offset;
}

void ExpertCache::finish_load(ExpertId id) noexcept {
  entry(id).state = State::kResident;
  ++num_resident_;
  reprice(id);
}

size_t ExpertCache::slot_index(uint64_t offset) const noexcept {
  const auto found =
      std::lower_bound(slots_.begin(), slots_.end(), offset,
                       [](const Slot& slot, uint64_t value) { return slot.offset < value; });
  return static_cast<size_t>(found - slots_.begin());
}

void ExpertCache::abandon_load(ExpertId id) noexcept {
  Entry& abandoned = entry(id);
  abandoned.pins = 0;
  free_slot(abandoned);
}

void ExpertCache::drop(ExpertId id) noexcept {
  EM_ASSERT(state(id) == State::kResident);
  EM_ASSERT(pins(id) == 0);
  --num_resident_;
  ++evictions_;
  free_slot(entry(id));
}

void ExpertCache::free_slot(Entry& entry) noexcept {
  const size_t index = slot_index(entry.slot_offset);
  entry.state = State::kAbsent;
  slots_[index].occupied = false;
  used_bytes_ -= slots_[index].bytes;
  costs_[index] = 0;
  // Gaps do not stay side by side, except at the end of the pool.
  const size_t usable = num_usable_slots();
  const auto join_if_gaps = [&](size_t first) {
    const bool same_side = (first < usable) == (first + 1 < usable);
    if (same_side && !slots_[first].occupied && !slots_[first + 1].occupied) join_with_next(first);
  };
  if (index + 1 < slots_.size()) join_if_gaps(index);
  if (index > 0) join_if_gaps(index - 1);
}

void ExpertCache::join_with_next(size_t index) noexcept {
  slots_[index].bytes += slots_[index + 1].bytes;
  slots_.erase(slots_.begin() + static_cast<ptrdiff_t>(index) + 1);
  costs_.erase(costs_.begin() + static_cast<ptrdiff_t>(index) + 1);
}

bool ExpertCache::has_slots_behind() const noexcept {
  return slots_.back().offset + slots_.back().bytes > pool_bytes_;
}

size_t ExpertCache::num_usable_slots() const noexcept {
  if (!has_slots_behind()) return slots_.size();
  size_t count = slot_index(pool_bytes_);
  // The one before may reach over the end.
  if (count > 0 && slots_[count - 1].offset + slots_[count - 1].bytes > pool_bytes_) --count;
  return count;
}

// Puts one gap wherever there is no slot, cut at the end of the pool, and none behind the last slot
// there.
void ExpertCache::arrange_gaps() {
  std::vector<Slot> arranged;
  arranged.reserve(slots_.capacity());
  uint64_t end = 0;
  const auto fill_until = [&](uint64_t next) {
    for (const uint64_t stop : {std::min(next, pool_bytes_), next}) {
      if (end < stop) arranged.push_back({end, stop - end, false, {}});
      end = std::max(end, stop);
    }
  };
  for (const Slot& slot : slots_) {
    if (!slot.occupied) continue;
    fill_until(slot.offset);
    arranged.push_back(slot);
    end = slot.offset + slot.bytes;
  }
  fill_until(std::max(end, pool_bytes_));
  slots_.swap(arranged);
  costs_.resize(slots_.size());
  costs_valid_ = false;
}

// Frees the slots behind the end that may be evicted. Most valuable first; ties by address.
std::vector<ExpertCache::Displaced> ExpertCache::displace_slots_behind() {
  std::vector<Displaced> displaced;
  price_slots(false);
  for (size_t i = num_usable_slots(); i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    if (!slot.occupied || costs_[i] == kMustStay) continue;
    displaced.push_back({slot.id, slot.bytes, value_of(slot)});
    slot.occupied = false;
    used_bytes_ -= slot.bytes;
  }
  std::stable_sort(displaced.begin(), displaced.end(),
                   [](const Displaced& a, const Displaced& b) { return a.value > b.value; });
  return displaced;
}

// False when everything in the pool is worth as much. What was placed stays while others follow:
// occupy() made it too expensive.
bool ExpertCache::place_again(const Displaced& displaced, double value_per_byte) noexcept {
  const double cost = displaced.value + value_per_byte * static_cast<double>(displaced.bytes);
  std::optional<Run> run = smallest_gap(displaced.bytes);
  if (!run) run = cheapest_run(displaced.bytes, cost);
  if (!run) return false;
  evict(*run);
  occupy(*run, displaced.id, displaced.bytes);
  entry(displaced.id).slot_offset = slots_[run->first].offset;
  return true;
}

std::vector<SlotMove> ExpertCache::resize(uint64_t pool_bytes) {
  pool_bytes_ = pool_bytes;
  arrange_gaps();
  std::vector<SlotMove> moves;
  if (!has_slots_behind()) return moves;
  const std::vector<Displaced> displaced = displace_slots_behind();
  moves.reserve(displaced.size());
  arrange_gaps();
  const double value_per_byte = value_per_byte_;  // that the prices are made with
  price_slots(false);
  for (const Displaced& one : displaced) {
    const uint64_t from = entry(one.id).slot_offset;
    if (place_again(one, value_per_byte)) {
      moves.push_back({from, entry(one.id).slot_offset, one.bytes});
    } else {
      entry(one.id).state = State::kAbsent;
      --num_resident_;
      ++evictions_;
    }
  }
  // A slot that reached over the end may have left bytes that another one moves to: it goes first.
  std::sort(moves.begin(), moves.end(),
            [](const SlotMove& a, const SlotMove& b) { return a.from < b.from; });
  costs_valid_ = false;
  return moves;
}

void ExpertCache::pin(ExpertId id) noexcept {
  if (entry(id).pins++ == 0) reprice(id);
}

void ExpertCache::unpin(ExpertId id) noexcept {
  EM_ASSERT(entry(id).pins > 0);
  if (--entry(id).pins == 0) reprice(id);
}

void ExpertCache::protect(ExpertId id) noexcept {
  entry(id).is_protected = true;
  costs_valid_ = false;
}

void ExpertCache::clear_protection(uint32_t layer) noexcept {
  for (uint32_t expert = 0; expert < num_experts_; ++expert) {
    entry({layer, expert}).is_protected = false;
  }
  costs_valid_ = false;
}

void ExpertCache::begin_step() noexcept {
  step_begin_ = tick_;
  popularity_.begin_step();
  has_run_.assign(has_run_.size(), false);
  update_worths();
  costs_valid_ = false;
}

void ExpertCache::set_current_layer(uint32_t layer) noexcept {
  if (!has_run_[layer]) {
    has_run_[layer] = true;
    popularity_.begin_layer(popularity_index({layer, 0}), num_experts_);
    for (uint32_t number = 0; number < numbers_per_layer_; ++number) update_worth({layer, number});
  }
  price_layers(layer);
}

void ExpertCache::price_layers(uint32_t layer) noexcept {
  const auto num_layers = static_cast<uint32_t>(urgencies_.size());
  for (uint32_t other = 0; other < num_layers; ++other) {
    // The running layer comes round last.
    const uint32_t distance = other > layer ? other - layer : other + num_layers - layer;
    urgencies_[other] = layer_urgency(policy_, distance, num_layers);
  }
  costs_valid_ = false;
}

void ExpertCache::record_use(ExpertId id, double share) noexcept {
  const size_t index = index_of(id);
  popularity_.record_use(popularity_index(id), static_cast<float>(share));
  ++histories_[index].uses;
  histories_[index].last_use = ++tick_;
  update_worth(id);
  costs_valid_ = false;
}

bool ExpertCache::load_popularity(std::span<const std::byte> saved) {
  if (!popularity_.load(saved)) return false;
  update_worths();
  costs_valid_ = false;
  return true;
}

size_t ExpertCache::num_resident() const noexcept {
  return num_resident_;
}

}  // namespace edgemoe
