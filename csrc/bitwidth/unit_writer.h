// The writing end of packing: packed rows in order into the shards' files, checksums and losses of
// units, and the journal that lets another run go on.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/fast_hash.h"
#include "bitwidth/output_shards.h"
#include "bitwidth/pack_batch.h"
#include "bitwidth/pack_journal.h"
#include "io/file_writer.h"

namespace edgemoe {

class UnitWriter {
 public:
  // Goes on after the units of the journal. All are borrowed.
  UnitWriter(const PackedTensors& packed, const std::vector<OutputShard>& shards,
             PackJournal& journal);

  // The rows of a batch. Errors: kIo.
  void write(const PackBatch& batch);
  // Ends the last file.
  void finish();
  uint64_t written_bytes() const noexcept { return written_bytes_; }

 private:
  void begin_tensor(size_t tensor);
  void end_tensor(size_t tensor);
  void open_shard_of(size_t unit);
  void end_file();
  void note_finished();

  const PackedTensors& packed_;
  const std::vector<OutputShard>& shards_;
  PackJournal& journal_;
  std::unique_ptr<FileWriter> file_;
  size_t shard_ = 0;
  size_t unit_;
  FastHash hash_;  // of the unit
  UnitRecord record_;
  struct Pending {
    UnitRecord record;
    uint64_t end = 0;  // of its last tensor, in the file
  };
  std::deque<Pending> pending_;  // units that are not yet with the system
  uint64_t written_bytes_ = 0;
};

}  // namespace edgemoe
