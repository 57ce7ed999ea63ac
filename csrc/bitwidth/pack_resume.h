// What an interrupted run left, and whether it can be gone on with.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "bitwidth/output_shards.h"
#include "bitwidth/pack_journal.h"

namespace edgemoe {

// A number for source, plan and importance: what it was made for is what it says. The headers hold
// all names, types and metadata. Errors: kIo.
uint64_t pack_key(const PackSource& source, const PackRequest& request,
                  const std::vector<OutputShard>& shards);

// The file that holds the shard now: its part file, or the finished one when only names were
// missing and this one has its name.
std::string current_path(const OutputShard& shard, const PackJournal& journal);

// How many units of the journal, from the first on, are in the files as the journal says. Reads
// them all. `on_unit` is told each unit that was found good. Errors: kIo only for a read that
// fails.
size_t count_good_units(const PackedTensors& packed, const std::vector<OutputShard>& shards,
                        const PackJournal& journal, const std::function<void(size_t)>& on_unit);

}  // namespace edgemoe
