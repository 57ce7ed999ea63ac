#include "bitwidth/unit_writer.h"

#include <algorithm>

#include "base/error.h"

namespace edgemoe {

UnitWriter::UnitWriter(const PackedTensors& packed, const std::vector<OutputShard>& shards,
                       PackJournal& journal)
    : packed_(packed), shards_(shards), journal_(journal), unit_(journal.records().size()) {}

void UnitWriter::write(const PackBatch& batch) {
  for (const PackSpan& span : batch.spans) {
    const PackedTensor& tensor = packed_.tensors[span.tensor];
    if (span.first_row == 0) begin_tensor(span.tensor);
    const size_t bytes = span.num_rows * row_bytes(tensor.type, tensor.columns());
    const std::span<const std::byte> packed(batch.out.data() + span.out_at, bytes);
    hash_.add(packed);
    file_->append(packed);
    written_bytes_ += bytes;
    RowLoss& loss = record_.losses[span.tensor - packed_.units[unit_].first_tensor];
    for (uint64_t row = 0; row < span.num_rows; ++row) {
      loss.error += batch.losses[span.loss_at + row].error;
      loss.power += batch.losses[span.loss_at + row].power;
    }
    if (span.ends_tensor) end_tensor(span.tensor);
  }
  note_finished();
}

void UnitWriter::begin_tensor(size_t tensor) {
  if (tensor == packed_.units[unit_].first_tensor) {
    hash_ = FastHash();
    record_ = UnitRecord();
    record_.unit = unit_;
    open_shard_of(unit_);
  }
  file_->pad_to(shards_[shard_].offset(tensor));
}

void UnitWriter::end_tensor(size_t tensor) {
  const PackUnit& unit = packed_.units[unit_];
  if (tensor + 1 != unit.first_tensor + unit.num_tensors) return;
  record_.hash = hash_.value();
  pending_.push_back({record_, file_->position()});
  ++unit_;
}

void UnitWriter::open_shard_of(size_t unit) {
  const auto holds = [&](const OutputShard& shard) {
    return unit >= shard.first_unit && unit < shard.first_unit + shard.num_units;
  };
  if (file_ != nullptr && holds(shards_[shard_])) return;
  if (file_ != nullptr) end_file();
  const auto found = std::find_if(shards_.begin(), shards_.end(), holds);
  EM_CHECK(found != shards_.end());
  shard_ = static_cast<size_t>(found - shards_.begin());
  file_ = std::make_unique<FileWriter>(found->part_path());
  file_->reserve(found->header.file_bytes());
  file_->start(found->offset(packed_.units[unit].first_tensor));
}

void UnitWriter::end_file() {
  file_->pad_to(shards_[shard_].header.file_bytes());
  file_->end();
  note_finished();
  file_.reset();
}

void UnitWriter::note_finished() {
  while (file_ != nullptr && !pending_.empty() && pending_.front().end <= file_->written()) {
    journal_.add(pending_.front().record);
    pending_.pop_front();
  }
}

void UnitWriter::finish() {
  if (file_ != nullptr) end_file();
  EM_CHECK(pending_.empty());
}

}  // namespace edgemoe
