#include "bitwidth/packer.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <future>
#include <memory>

#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "bitwidth/output_shards.h"
#include "bitwidth/pack_batch.h"
#include "bitwidth/pack_resume.h"
#include "bitwidth/unit_writer.h"
#include "engine/system_memory.h"
#include "io/file.h"
#include "quant/layout.h"

namespace edgemoe {
namespace {

using Clock = std::chrono::steady_clock;

// Larger batches gain nothing; a batch of the slowest types should still end within seconds.
constexpr size_t kMostBufferBytes = 8u << 20;
constexpr size_t kBatchWeights = 2u << 20;
constexpr size_t kNumBatches = 3;  // one is read, one packed, one written
constexpr size_t kBuffers = 2 * kNumBatches;
constexpr size_t kLeastColumns = 32;
constexpr size_t kBounceBytes = 2u << 20;
constexpr uint64_t kSlackBytes = 8 * kMiB;  // stacks, the allocator, the journal
constexpr auto kWatchInterval = std::chrono::milliseconds(20);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Asks the watcher now and then, from the thread that packs.
class Watch {
 public:
  Watch(const PackWatcher& watcher, uint64_t num_weights) : watcher_(watcher) {
    progress_.num_weights = num_weights;
  }
  PackProgress& progress() noexcept { return progress_; }
  bool is_stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }
  // Cheap when it was asked a moment ago. Who said stop is not asked again.
  void look() {
    if (is_stopped() || Clock::now() - last_ < kWatchInterval) return;
    last_ = Clock::now();
    if (watcher_ && watcher_(progress_)) stopped_.store(true, std::memory_order_relaxed);
  }
  // Errors: kCancelled.
  void check() {
    look();
    if (is_stopped()) {
      throw Error(ErrorCode::kCancelled,
                  "packing was stopped; the same command goes on where it was");
    }
  }

 private:
  const PackWatcher& watcher_;
  PackProgress progress_;
  Clock::time_point last_ = Clock::now();
  std::atomic<bool> stopped_{false};
};

class Packer {
 public:
  Packer(const PackSource& source, const PackRequest& request, const PackWatcher& watcher)
      : source_(source),
        request_(request),
        packed_(packed_tensors(source, request)),
        shards_(output_shards(source, request, packed_)),
        watch_(watcher, count_weights()) {}

  PackResult run() {
    const auto start = Clock::now();
    check_output_is_free_of_sources();
    limits_ = batch_limits();
    PackJournal journal(request_.output + ".part.journal", pack_key(source_, request_, shards_),
                        request_.resume);
    try {
      check_output(journal);
      resume(journal);
      check_output(journal);  // a finished run may have turned out not to be ours
      pack_units(journal);
      finish(journal);
    } catch (const Error& error) {
      // Nothing to go on with, or it would end here again: nothing is left behind.
      const bool useless = error.code() == ErrorCode::kFormat;
      if (journal.records().empty() || useless) remove_parts(journal);
      throw;
    }
    result_.seconds = seconds_since(start);
    return std::move(result_);
  }

 private:
  uint64_t count_weights() const {
    uint64_t weights = 0;
    for (const PackedTensor& tensor : packed_.tensors) weights += tensor.weights();
    return weights;
  }

  void check_output_is_free_of_sources() const {
    std::error_code ignored;
    for (const OutputShard& shard : shards_) {
      for (const std::string& path : source_.gguf().paths()) {
        if (std::filesystem::equivalent(shard.path, path, ignored) ||
            std::filesystem::equivalent(shard.part_path(), path, ignored)) {
          throw Error(ErrorCode::kArgument,
                      shard.path + ": is the model that is packed; name another output");
        }
      }
    }
  }

  void check_output(const PackJournal& journal) const {
    for (const OutputShard& shard : shards_) {
      if (current_path(shard, journal) == shard.path) continue;  // ours
      std::error_code ignored;
      if (!std::filesystem::exists(std::filesystem::symlink_status(shard.path, ignored))) continue;
      if (!std::filesystem::is_regular_file(shard.path, ignored)) {
        throw Error(ErrorCode::kArgument, shard.path + ": exists and is not a regular file");
      }
      if (request_.overwrite) continue;
      throw Error(ErrorCode::kArgument,
                  shard.path + ": exists; --force replaces it when the new one is whole");
    }
  }

  BatchLimits batch_limits() const {
    const size_t least = least_buffer_bytes(packed_);
    size_t columns = 0;
    uint64_t header = 0;
    for (const PackedTensor& tensor : packed_.tensors) {
      columns = std::max<size_t>(columns, tensor.columns());
    }
    for (const OutputShard& shard : shards_) header = std::max(header, shard.header.data_begin());
    const uint64_t losses = kNumBatches * (kBatchWeights / kLeastColumns) * sizeof(RowLoss);
    const uint64_t fixed = process_memory().resident_bytes + 3 * header + losses +
                           FileWriter::kBufferBytes + kBounceBytes + kSlackBytes +
                           request_.num_threads * RowScratch::bytes(columns);
    const uint64_t spare = request_.memory_bytes - std::min(request_.memory_bytes, fixed);
    if (spare / kBuffers < least) {
      throw Error(ErrorCode::kBudget, "packing this model takes at least " +
                                          format_bytes(fixed + kBuffers * least) +
                                          " of memory, not " + format_bytes(request_.memory_bytes) +
                                          "; give a larger --memory or fewer --threads");
    }
    const size_t most = std::max(least, kMostBufferBytes);
    return {std::clamp<size_t>(spare / kBuffers, least, most), kBatchWeights};
  }

  void resume(PackJournal& journal) {
    PackProgress& progress = watch_.progress();
    size_t good = count_good_units(packed_, shards_, journal, [&](size_t unit) {
      for (size_t i = 0; i < packed_.units[unit].num_tensors; ++i) {
        progress.weights_done += packed_.tensors[packed_.units[unit].first_tensor + i].weights();
      }
      progress.resumed_weights = progress.weights_done;
      watch_.check();
    });
    if (journal.is_sealed()) {
      if (good == packed_.units.size() && have_headers(journal)) return;
      good = 0;  // the files that got their names were changed since
    }
    if (good == 0) progress.weights_done = progress.resumed_weights = 0;
    journal.keep(good);
  }

  // Whether the files that have their names already begin as they should.
  bool have_headers(const PackJournal& journal) {
    if (request_.format == PackFormat::kContainer) set_sums(shards_.front(), sums(journal));
    for (const OutputShard& shard : shards_) {
      if (current_path(shard, journal) != shard.path) continue;
      const File file(shard.path, FileAccess::kBuffered);
      const std::vector<std::byte> header = shard.header.header();
      std::vector<std::byte> found(header.size());
      if (file.size() != shard.header.file_bytes()) return false;
      file.read_exact(0, found);
      if (found != header) return false;
    }
    return true;
  }

  void pack_units(PackJournal& journal) {
    UnitWriter writer(packed_, shards_, journal);
    BatchCursor cursor(packed_, journal.records().size(), limits_);
    std::vector<File> files;
    for (const std::string& path : source_.gguf().paths()) {
      files.emplace_back(path, FileAccess::kDirect);
    }
    ThreadPool pool(request_.num_threads);
    std::vector<RowScratch> scratch;
    size_t columns = 0;
    for (const PackedTensor& tensor : packed_.tensors) {
      columns = std::max<size_t>(columns, tensor.columns());
    }
    for (uint32_t i = 0; i < request_.num_threads; ++i) scratch.emplace_back(columns);
    PackBatch batches[kNumBatches];
    for (PackBatch& batch : batches) {
      batch.source = AlignedBuffer(limits_.buffer_bytes);
      batch.out = AlignedBuffer(limits_.buffer_bytes);
    }
    AlignedBuffer bounce(kBounceBytes);
    const auto read = [&](PackBatch& batch) {
      batch.spans = cursor.next();
      read_batch(batch, files, bounce.span());
    };
    // The futures' destructors wait: whatever is thrown, nothing runs on behind it.
    std::future<void> writing;
    std::future<void> reading = std::async(std::launch::async, read, std::ref(batches[0]));
    for (size_t index = 0;; ++index) {
      PackBatch& batch = batches[index % kNumBatches];
      reading.get();
      if (batch.spans.empty()) break;
      reading = std::async(std::launch::async, read, std::ref(batches[(index + 1) % kNumBatches]));
      pack_batch(batch, pool, scratch);
      watch_.check();  // a batch that was stopped is not whole and must not be written
      if (writing.valid()) writing.get();
      writing = std::async(std::launch::async, [&writer, &batch] { writer.write(batch); });
    }
    if (writing.valid()) writing.get();
    writer.finish();
    result_.written_bytes = writer.written_bytes();
  }

  void read_batch(PackBatch& batch, const std::vector<File>& files, std::span<std::byte> bounce) {
    size_t rows = 0;
    for (const PackSpan& span : batch.spans) {
      const PackedTensor& tensor = packed_.tensors[span.tensor];
      const size_t bytes = span.num_rows * row_bytes(tensor.source_type, tensor.columns());
      files[span.shard].read_exact(span.source_offset,
                                   {batch.source.data() + span.source_at, bytes}, bounce);
      result_.read_bytes += bytes;
      rows += span.num_rows;
    }
    batch.losses.assign(rows, RowLoss());
  }

  void pack_batch(PackBatch& batch, ThreadPool& pool, std::vector<RowScratch>& scratch) {
    tasks_.clear();
    for (const PackSpan& span : batch.spans) add_tasks(batch, span);
    std::atomic<size_t> first_bad{tasks_.size()};
    std::vector<BadWeight> bad(tasks_.size());
    pool.parallel_for(tasks_.size(), [&](size_t item, size_t worker) {
      if (worker == 0) watch_.look();
      if (watch_.is_stopped()) return;
      if (pack_rows(tasks_[item], scratch[worker], bad[item])) return;
      size_t known = first_bad.load();
      while (item < known && !first_bad.compare_exchange_weak(known, item)) continue;
    });
    if (const size_t item = first_bad.load(); item != tasks_.size()) {
      fail_for(*tasks_[item].tensor, bad[item]);
    }
    for (const PackSpan& span : batch.spans) {
      const PackedTensor& tensor = packed_.tensors[span.tensor];
      const uint64_t weights = span.num_rows * tensor.columns();
      watch_.progress().weights_done += weights;
      result_.num_weights += weights;
      if (!tensor.keeps_type()) result_.quantized_weights += weights;
    }
  }

  void add_tasks(PackBatch& batch, const PackSpan& span) {
    const PackedTensor& tensor = packed_.tensors[span.tensor];
    const size_t source_stride = row_bytes(tensor.source_type, tensor.columns());
    const size_t stride = row_bytes(tensor.type, tensor.columns());
    RowTask task;
    for (uint64_t row = 0; row < span.num_rows; row += task.num_rows) {
      task.tensor = &tensor;
      task.first_row = span.first_row + row;
      // A task has one row of importance: it ends where its matrix does.
      const uint64_t matrix_rows =
          tensor.rows_per_importance - task.first_row % tensor.rows_per_importance;
      task.num_rows = std::min<uint64_t>(kTaskRows, std::min(span.num_rows - row, matrix_rows));
      task.source = batch.source.data() + span.source_at + row * source_stride;
      task.out = batch.out.data() + span.out_at + row * stride;
      task.losses = batch.losses.data() + span.loss_at + row;
      tasks_.push_back(task);
    }
  }

  [[noreturn]] void fail_for(const PackedTensor& tensor, const BadWeight& bad) const {
    throw Error(ErrorCode::kFormat,
                source_.gguf().paths()[0] + ": tensor '" + tensor.name + "' has a weight at row " +
                    std::to_string(bad.row) + ", column " + std::to_string(bad.column) +
                    " that is no finite number and cannot be quantised; the model is damaged, "
                    "fetch or convert it again");
  }

  void remove_parts(PackJournal& journal) const {
    std::error_code ignored;
    for (const OutputShard& shard : shards_) std::filesystem::remove(shard.part_path(), ignored);
    journal.remove();
  }

  void finish(PackJournal& journal) {
    const PackSums sums = this->sums(journal);
    if (request_.format == PackFormat::kContainer) set_sums(shards_.front(), sums);
    if (!journal.is_sealed()) {
      for (const OutputShard& shard : shards_) {
        FileWriter file(shard.part_path());
        file.resize(shard.header.file_bytes());
        file.overwrite(0, shard.header.header());
        file.sync();
      }
      journal.seal();
    }
    // The first shard last: it is the one that people name.
    for (auto shard = shards_.rbegin(); shard != shards_.rend(); ++shard) {
      if (current_path(*shard, journal) == shard->path) continue;
      if (std::rename(shard->part_path().c_str(), shard->path.c_str()) == 0) continue;
      throw Error(ErrorCode::kIo, shard->path + ": cannot get its name: " + errno_text(errno));
    }
    sync_folder_of(shards_.front().path);
    journal.remove();
    count_sizes(sums);
    result_.resumed_weights = watch_.progress().resumed_weights;
  }

  PackSums sums(const PackJournal& journal) const {
    PackSums sums = empty_sums(source_, packed_);
    std::vector<double> weighted(kNumQuantTypes);
    std::vector<uint64_t> weights(kNumQuantTypes);
    std::vector<bool> from_quantized(kNumQuantTypes);
    for (const UnitRecord& record : journal.records()) {
      const PackUnit& unit = packed_.units[record.unit];
      if (unit.expert >= 0) {
        auto& checksums = unit.low_copy ? sums.low_checksums : sums.expert_checksums;
        checksums[static_cast<size_t>(unit.expert)] = record.hash;
      } else if (record.unit < sums.dense_checksums.size()) {
        sums.dense_checksums[record.unit] = record.hash;
      }
      for (size_t i = 0; i < unit.num_tensors; ++i) {
        const PackedTensor& tensor = packed_.tensors[unit.first_tensor + i];
        if (tensor.keeps_type()) continue;
        const auto type = static_cast<size_t>(tensor.type);
        const RowLoss& loss = record.losses[i];
        const auto count = static_cast<double>(tensor.weights());
        weighted[type] += loss.power > 0 ? count * (loss.error / loss.power) : 0;
        weights[type] += tensor.weights();
        if (traits(tensor.source_type).block_elements != 1) from_quantized[type] = true;
      }
    }
    for (PackLoss& loss : sums.losses) {
      const auto type = static_cast<size_t>(loss.type);
      loss.num_weights = weights[type];
      loss.relative_error = std::sqrt(weighted[type] / static_cast<double>(weights[type]));
      loss.from_quantized = from_quantized[type];
    }
    return sums;
  }

  void count_sizes(const PackSums& sums) {
    for (const OutputShard& shard : shards_) {
      result_.paths.push_back(shard.path);
      result_.output_bytes += shard.header.file_bytes();
    }
    for (const PackUnit& unit : packed_.units) {
      result_.num_low_copies += unit.low_copy;
      for (size_t i = 0; i < unit.num_tensors; ++i) count_size(unit, unit.first_tensor + i);
    }
    result_.losses = sums.losses;
  }

  void count_size(const PackUnit& unit, size_t index) {
    const PackedTensor& tensor = packed_.tensors[index];
    const bool is_dense = index < source_.dense().size();
    uint64_t& weights = unit.low_copy ? result_.low_copy_weights
                        : is_dense    ? result_.dense_weights
                                      : result_.expert_weights;
    uint64_t& bytes = unit.low_copy ? result_.low_copy_bytes
                      : is_dense    ? result_.dense_bytes
                                    : result_.expert_bytes;
    weights += tensor.weights();
    bytes += tensor.bytes();
  }

  const PackSource& source_;
  const PackRequest& request_;
  const PackedTensors packed_;
  std::vector<OutputShard> shards_;
  Watch watch_;
  BatchLimits limits_;
  std::vector<RowTask> tasks_;
  PackResult result_;
};

}  // namespace

PackResult pack_model(const PackSource& source, const PackRequest& request,
                      const PackWatcher& watcher) {
  return Packer(source, request, watcher).run();
}

}  // namespace edgemoe
