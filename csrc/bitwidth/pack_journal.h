// What an unfinished run has done so far, beside the files that it writes: a header with the key of
// source, plan and importance, then one record for each finished unit, in order. Whoever holds the
// journal holds the output: it is locked.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "bitwidth/row_packing.h"

namespace edgemoe {

struct UnitRecord {
  uint64_t unit = 0;
  uint64_t hash = 0;                               // fast_hash of its tensors without padding
  std::array<RowLoss, kNumExpertMatrices> losses;  // of its tensors
};

class PackJournal {
 public:
  // Opens or creates and locks. Records of another key are forgotten. Errors: kIo, also when
  // another process holds it.
  PackJournal(std::string path, uint64_t key, bool resume);
  PackJournal(const PackJournal&) = delete;
  PackJournal& operator=(const PackJournal&) = delete;
  ~PackJournal();

  // Of units 0, 1, 2, ... as far as the journal is whole.
  const std::vector<UnitRecord>& records() const noexcept { return records_; }
  // Everything is written and on the device; only names may be missing.
  bool is_sealed() const noexcept { return is_sealed_; }
  // Forgets the records from `count` on, and the seal.
  void keep(size_t count);
  void add(const UnitRecord& record);
  void seal();
  void remove() noexcept;

 private:
  void open();
  void read(uint64_t key);
  void start(uint64_t key);
  void write(const void* data, size_t bytes);
  [[noreturn]] void fail(const std::string& what, int error_number) const;

  std::string path_;
  int descriptor_ = -1;
  std::vector<UnitRecord> records_;
  bool is_sealed_ = false;
};

}  // namespace edgemoe
