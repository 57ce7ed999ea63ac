#include "bitwidth/output_shards.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/units.h"
#include "gguf/shards.h"
#include "io/file.h"
#include "weights/container_keys.h"
#include "weights/packed_container.h"

namespace edgemoe {
namespace {

constexpr uint64_t kStockAlignment = 32;
constexpr std::string_view kSuffix = ".gguf";
// A directory entry takes less.
constexpr uint64_t kMostEntryBytes = 256;

bool is_copied(std::string_view key) noexcept {
  return !key.starts_with("split.") && !key.starts_with(container::kPrefix) &&
         key != "general.alignment";
}

void set_source_metadata(const PackSource& source, GgufWriter& header) {
  const GgufFile& gguf = source.gguf();
  const File file(gguf.paths()[0], FileAccess::kBuffered);
  const auto entries = gguf.metadata().entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!is_copied(entries[i].first)) continue;
    const FileExtent extent = gguf.metadata_extents()[i];
    std::string value(extent.bytes, '\0');
    file.read_exact(extent.offset, std::as_writable_bytes(std::span(value)));
    header.set(entries[i].first, std::move(value));
  }
}

void set_split(OutputShard& shard, size_t number, size_t count, size_t num_tensors) {
  shard.header.set("split.no", gguf_value(static_cast<uint16_t>(number)));
  shard.header.set("split.count", gguf_value(static_cast<uint16_t>(count)));
  shard.header.set("split.tensors.count", gguf_value(static_cast<int32_t>(num_tensors)));
}

class Divider {
 public:
  Divider(const PackSource& source, const PackRequest& request, const PackedTensors& packed)
      : source_(source), request_(request), packed_(packed) {}

  std::vector<OutputShard> run() {
    start_shard();
    set_first_metadata();
    for (size_t unit = 0; unit < packed_.units.size(); ++unit) add_unit(unit);
    name_shards();
    return std::move(shards_);
  }

 private:
  bool is_container() const { return request_.format == PackFormat::kContainer; }

  void start_shard() {
    OutputShard shard(is_container() ? container::kAlignment : kStockAlignment);
    if (!shards_.empty()) {
      shard.first_unit = shards_.back().first_unit + shards_.back().num_units;
      shard.first_tensor = packed_.units[shard.first_unit].first_tensor;
    }
    if (request_.max_shard_bytes != 0) set_split(shard, 0, 0, 0);
    shards_.push_back(std::move(shard));
  }

  void set_first_metadata() {
    OutputShard& first = shards_.front();
    set_source_metadata(source_, first.header);
    if (is_container()) {
      first.header.set(container::kFormatVersion, gguf_value(kContainerFormat));
      first.header.set(container::kLayoutVersion, gguf_value(kContainerLayout));
      set_sums(first, empty_sums(source_, packed_));
    }
    for (const auto& [key, value] : request_.metadata) first.header.set(key, value);
  }

  void add_unit(size_t index) {
    const PackUnit& unit = packed_.units[index];
    const std::span tensors(packed_.tensors.data() + unit.first_tensor, unit.num_tensors);
    uint64_t bytes = 0;
    for (const PackedTensor& tensor : tensors) {
      bytes += align_up(tensor.bytes(), container::kAlignment) + kMostEntryBytes;
    }
    const uint64_t most = request_.max_shard_bytes;
    const auto fits = [&] {
      return most == 0 || shards_.back().header.file_bytes() + bytes <= most;
    };
    if (!fits() && shards_.back().num_units != 0) start_shard();
    if (!fits()) {
      throw Error(ErrorCode::kArgument,
                  "shards of " + std::to_string(most) + " bytes are too small: '" +
                      tensors.front().name + "' and what goes with it take " +
                      std::to_string(shards_.back().header.file_bytes() + bytes));
    }
    for (const PackedTensor& tensor : tensors) {
      shards_.back().header.add_tensor(tensor.name, tensor.type, tensor.shape);
    }
    ++shards_.back().num_units;
  }

  void name_shards() {
    const std::string& output = request_.output;
    if (shards_.size() == 1) {
      shards_.front().path = output;
      if (request_.max_shard_bytes != 0) {
        set_split(shards_.front(), 0, 1, packed_.tensors.size());
      }
      return;
    }
    const bool has_suffix = output.ends_with(kSuffix);
    const std::string prefix =
        has_suffix ? output.substr(0, output.size() - kSuffix.size()) : output;
    const std::vector<std::string> paths =
        shard_paths(prefix, static_cast<uint32_t>(shards_.size()));
    for (size_t i = 0; i < shards_.size(); ++i) {
      shards_[i].path = paths[i];
      set_split(shards_[i], i, shards_.size(), packed_.tensors.size());
    }
  }

  const PackSource& source_;
  const PackRequest& request_;
  const PackedTensors& packed_;
  std::vector<OutputShard> shards_;
};

}  // namespace

PackSums empty_sums(const PackSource& source, const PackedTensors& packed) {
  PackSums sums;
  sums.expert_checksums.resize(size_t{source.num_layers()} * source.num_experts());
  if (std::any_of(packed.units.begin(), packed.units.end(),
                  [](const PackUnit& unit) { return unit.low_copy; })) {
    sums.low_checksums.resize(sums.expert_checksums.size());
  }
  sums.dense_checksums.resize(source.dense().size());
  std::set<QuantType> types;
  for (const PackedTensor& tensor : packed.tensors) {
    if (!tensor.keeps_type()) types.insert(tensor.type);
  }
  for (const QuantType type : types) {
    PackLoss loss;
    loss.type = type;
    sums.losses.push_back(loss);
  }
  return sums;
}

std::vector<OutputShard> output_shards(const PackSource& source, const PackRequest& request,
                                       const PackedTensors& packed) {
  return Divider(source, request, packed).run();
}

void set_sums(OutputShard& first, const PackSums& sums) {
  std::vector<std::string> types;
  std::vector<float> errors;
  for (const PackLoss& loss : sums.losses) {
    types.emplace_back(traits(loss.type).name);
    errors.push_back(static_cast<float>(loss.relative_error));
  }
  first.header.set(container::kExpertChecksums,
                   gguf_value(std::span<const uint64_t>(sums.expert_checksums)));
  if (!sums.low_checksums.empty()) {
    first.header.set(container::kLowVersion, gguf_value(kLowCopyVersion));
    first.header.set(container::kLowChecksums,
                     gguf_value(std::span<const uint64_t>(sums.low_checksums)));
  }
  first.header.set(container::kDenseChecksums,
                   gguf_value(std::span<const uint64_t>(sums.dense_checksums)));
  first.header.set(container::kLossTypes, gguf_value(std::span<const std::string>(types)));
  first.header.set(container::kLossErrors, gguf_value(std::span<const float>(errors)));
}

}  // namespace edgemoe
