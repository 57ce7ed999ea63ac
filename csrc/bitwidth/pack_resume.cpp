#include "bitwidth/pack_resume.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/fast_hash.h"
#include "io/file.h"

namespace edgemoe {
namespace {

constexpr size_t kReadBytes = 2u << 20;

template <class T>
void add_value(FastHash& hash, T value) {
  hash.add(std::as_bytes(std::span(&value, 1)));
}

void add_text(FastHash& hash, std::string_view text) {
  add_value(hash, uint64_t{text.size()});
  hash.add(std::as_bytes(std::span(text)));
}

// Which file it is and when it was changed last.
void add_identity(FastHash& hash, const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) {
    throw Error(ErrorCode::kIo, path + ": cannot be examined: " + errno_text(errno));
  }
  add_value(hash, uint64_t{status.st_dev});
  add_value(hash, uint64_t{status.st_ino});
  add_value(hash, int64_t{status.st_size});
  add_value(hash, int64_t{status.st_mtim.tv_sec});
  add_value(hash, int64_t{status.st_mtim.tv_nsec});
}

// Reads parts of one shard at a time.
class UnitReader {
 public:
  UnitReader(const PackedTensors& packed, const std::vector<OutputShard>& shards,
             const PackJournal& journal)
      : packed_(packed), shards_(shards), journal_(journal), buffer_(2 * kReadBytes) {}

  // False when the file is missing or too short.
  bool hash_unit(size_t index, uint64_t& hash) {
    if (!open_shard_of(index)) return false;
    const PackUnit& unit = packed_.units[index];
    FastHash sum;
    for (size_t i = 0; i < unit.num_tensors; ++i) {
      if (!add_tensor(unit.first_tensor + i, sum)) return false;
    }
    hash = sum.value();
    return true;
  }

 private:
  bool open_shard_of(size_t unit) {
    while (unit >= shards_[shard_].first_unit + shards_[shard_].num_units) {
      ++shard_;
      file_.reset();
    }
    if (file_ != nullptr) return true;
    const std::string path = current_path(shards_[shard_], journal_);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) return false;
    file_ = std::make_unique<File>(path, FileAccess::kDirect);
    return true;
  }

  bool add_tensor(size_t tensor, FastHash& sum) {
    uint64_t at = shards_[shard_].offset(tensor);
    uint64_t left = packed_.tensors[tensor].bytes();
    if (at + left > file_->size()) return false;
    while (left != 0) {
      const size_t count = std::min<uint64_t>(left, kReadBytes / 2);
      const std::span<std::byte> out = buffer_.span().first(count);
      file_->read_exact(at, out, buffer_.span().subspan(kReadBytes));
      sum.add(out);
      at += count;
      left -= count;
    }
    return true;
  }

  const PackedTensors& packed_;
  const std::vector<OutputShard>& shards_;
  const PackJournal& journal_;
  AlignedBuffer buffer_;
  size_t shard_ = 0;
  std::unique_ptr<File> file_;
};

}  // namespace

uint64_t pack_key(const PackSource& source, const PackRequest& request,
                  const std::vector<OutputShard>& shards) {
  FastHash hash;
  add_text(hash, EDGEMOE_VERSION);
  for (const std::string& path : source.gguf().paths()) add_identity(hash, path);
  for (const OutputShard& shard : shards) {
    add_text(hash, shard.path);
    hash.add(shard.header.header());
  }
  const PackImportance& importance = request.importance;
  for (const std::span<const float> table : {importance.expert_input, importance.expert_hidden}) {
    add_value(hash, uint64_t{table.size()});
    hash.add(std::as_bytes(table));
  }
  for (const PackFeedback* feedback : {&importance.input_feedback, &importance.hidden_feedback}) {
    add_value(hash, feedback->per_layer);
    hash.add(std::as_bytes(feedback->upper));
    hash.add(std::as_bytes(feedback->pivots));
    hash.add(std::as_bytes(feedback->diagonal));
  }
  for (const auto& [name, table] : importance.tensors) {
    add_text(hash, name);
    add_value(hash, uint64_t{table.size()});
    hash.add(std::as_bytes(table));
  }
  return hash.value();
}

std::string current_path(const OutputShard& shard, const PackJournal& journal) {
  std::error_code ignored;
  const bool has_name = journal.is_sealed() && !std::filesystem::exists(shard.part_path(), ignored);
  return has_name ? shard.path : shard.part_path();
}

size_t count_good_units(const PackedTensors& packed, const std::vector<OutputShard>& shards,
                        const PackJournal& journal, const std::function<void(size_t)>& on_unit) {
  UnitReader reader(packed, shards, journal);
  for (size_t unit = 0; unit < journal.records().size(); ++unit) {
    uint64_t hash = 0;
    if (!reader.hash_unit(unit, hash) || hash != journal.records()[unit].hash) return unit;
    on_unit(unit);
  }
  return journal.records().size();
}

}  // namespace edgemoe
