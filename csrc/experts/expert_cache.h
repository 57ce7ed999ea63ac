// Which experts are in memory and where. Bookkeeping only: no I/O, no threads, no clock.
//
// Invariants
//   - The pool is one range of bytes, cut into slots and free gaps that tile it in address order.
//   - A slot belongs to one expert and is loading, resident or free; a loading or pinned slot is
//     never evicted. The bytes of all slots never exceed the pool: there is no soft capacity.
//   - Making room evicts the run of neighbouring slots and gaps that is large enough and has the
//     least total keep value, bytes that it would leave unused counted at a multiple of the pool's
//     average; with slots of one size that is exactly the least valuable expert. Where experts
//     differ in size, values are not weighed by bytes: that was measured to read no fewer.
//   - Any expert of at most half the pool finds room while no slot is pinned or loading.
//   - A protected expert goes only when no run of unprotected ones is large enough.
//   - Low copies have entries of their own. An expert and its low copy are equally popular: what
//     counts is how often the expert is asked for, and the smaller one holds its place more
//     cheaply.
//   - The pool may be resized. It shrinks at its end: experts that lay there move to the places of
//     less valuable ones. Pinned and loading ones stay until the next resize after their release;
//     nothing new gets a slot behind the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "experts/eviction.h"
#include "experts/expert_id.h"
#include "experts/popularity.h"

namespace edgemoe {

// An expert whose bytes have to go elsewhere in the pool.
struct SlotMove {
  uint64_t from;  // offsets
  uint64_t to;
  uint64_t bytes;
};

class ExpertCache {
 public:
  // `low_copies`: numbers from num_experts on are low copies (ExpertLayout).
  ExpertCache(uint32_t num_layers, uint32_t num_experts, uint64_t pool_bytes, EvictionPolicy policy,
              bool low_copies = false);

  enum class State : uint8_t { kAbsent, kLoading, kResident };
  State state(ExpertId id) const noexcept;
  // Offset of the expert's slot in the pool. Requires: not absent.
  uint64_t slot_offset(ExpertId id) const noexcept;

  // Reserves a slot for an absent expert, evicting as needed; it is loading and pinned once.
  // Empty when pinned and loading slots leave no run of `bytes`.
  std::optional<uint64_t> reserve(ExpertId id, uint64_t bytes);
  bool has_room(uint64_t bytes) const noexcept;  // that reserve takes without an eviction
  void finish_load(ExpertId id) noexcept;        // loading -> resident, still pinned
  void abandon_load(ExpertId id) noexcept;       // loading -> absent, slot freed
  void drop(ExpertId id) noexcept;  // resident, not pinned -> absent, slot freed; an eviction

  // Changes the bytes of the pool. Returns the experts whose bytes the caller moves, in this order,
  // before the cache is used again; source and target of one move may overlap. Call it again when
  // has_slots_behind() and what was pinned is released.
  std::vector<SlotMove> resize(uint64_t pool_bytes);
  bool has_slots_behind() const noexcept;  // the end of the pool

  void pin(ExpertId id) noexcept;  // Requires: not absent. Counted.
  void unpin(ExpertId id) noexcept;
  uint32_t pins(ExpertId id) const noexcept;

  // Experts that are expected soon: evicted after all others. They need not be resident.
  void protect(ExpertId id) noexcept;
  void clear_protection(uint32_t layer) noexcept;

  void begin_step() noexcept;                       // one forward pass
  void set_current_layer(uint32_t layer) noexcept;  // before its demands
  // One demand of the running step, by `share` of its tokens (0 to 1).
  void record_use(ExpertId id, double share) noexcept;
  const ExpertHistory& history(ExpertId id) const noexcept;
  // How often experts were used, to be kept between runs; see Popularity.
  std::vector<std::byte> save_popularity() const { return popularity_.save(); }
  bool load_popularity(std::span<const std::byte> saved);

  uint64_t pool_bytes() const noexcept { return pool_bytes_; }
  uint64_t used_bytes() const noexcept { return used_bytes_; }  // slots behind the end included
  uint64_t evictions() const noexcept { return evictions_; }
  size_t num_resident() const noexcept;

 private:
  struct Slot {  // or a gap, when !occupied
    uint64_t offset;
    uint64_t bytes;
    bool occupied;
    ExpertId id;
  };
  struct Entry {
    State state = State::kAbsent;
    bool is_protected = false;
    uint32_t pins = 0;
    uint64_t slot_offset = 0;
  };
  // Slots [first, last) and the bytes that they cover.
  struct Run {
    size_t first = 0;
    size_t last = 0;
    uint64_t bytes = 0;
  };
  // An expert that lay behind the end of a pool that shrinks, and its keep value.
  struct Displaced {
    ExpertId id;
    uint64_t bytes;
    double value;
  };
  size_t index_of(ExpertId id) const noexcept {
    return size_t{id.layer} * numbers_per_layer_ + id.expert;
  }
  // Of the expert that the number stands for, in popularity_.
  size_t popularity_index(ExpertId id) const noexcept {
    const uint32_t expert = id.expert < num_experts_ ? id.expert : id.expert - num_experts_;
    return size_t{id.layer} * num_experts_ + expert;
  }
  Entry& entry(ExpertId id) noexcept { return entries_[index_of(id)]; }
  const Entry& entry(ExpertId id) const noexcept { return entries_[index_of(id)]; }
  void update_worth(ExpertId id) noexcept;
  void update_worths() noexcept;
  double value_of(const Slot& slot) const noexcept;
  double byte_cost(const Slot& slot) const noexcept;
  void price_layers(uint32_t running) noexcept;
  void price_slots(bool spare_protected) noexcept;
  void reprice(ExpertId id) noexcept;
  std::optional<Run> smallest_gap(uint64_t bytes) const noexcept;
  std::optional<Run> cheapest_run(uint64_t bytes, double limit) const noexcept;
  std::optional<Run> least_valuable_run(uint64_t bytes) noexcept;
  void evict(const Run& run) noexcept;
  void occupy(const Run& run, ExpertId id, uint64_t bytes) noexcept;
  void free_slot(Entry& entry) noexcept;
  void join_with_next(size_t index) noexcept;
  size_t slot_index(uint64_t offset) const noexcept;
  size_t num_usable_slots() const noexcept;
  void arrange_gaps();
  std::vector<Displaced> displace_slots_behind();
  bool place_again(const Displaced& displaced, double value_per_byte) noexcept;

  uint32_t num_experts_;
  uint32_t numbers_per_layer_;
  uint64_t pool_bytes_;
  EvictionPolicy policy_;
  uint64_t tick_ = 0;        // demands so far
  uint64_t step_begin_ = 0;  // tick
  uint64_t used_bytes_ = 0;
  uint64_t evictions_ = 0;
  size_t num_resident_ = 0;
  std::vector<Slot> slots_;  // tile the pool, sorted by offset; capacity reserved at the start
  // By layer, then number.
  std::vector<Entry> entries_;
  std::vector<ExpertHistory> histories_;
  Popularity popularity_;
  std::vector<double> worths_;
  std::vector<double> urgencies_;  // by layer, seen from the running one
  std::vector<bool> has_run_;      // in the running step, by layer

  // Price of evicting each slot: infinite when it must stay, 0 for a gap. A request may evict many
  // times: prices are computed once and kept up in between.
  std::vector<double> costs_;
  bool costs_valid_ = false;
  bool costs_spare_protected_ = true;
  double value_per_byte_ = 0;  // of free bytes
};

}  // namespace edgemoe
