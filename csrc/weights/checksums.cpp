#include "weights/checksums.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/fast_hash.h"
#include "base/units.h"
#include "io/file.h"

namespace edgemoe {
namespace {

constexpr uint64_t kPieceBytes = 4 * kMiB;

struct Piece {
  uint32_t shard = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

// The matrices of an expert in the order of their checksum.
std::vector<Piece> pieces_of(const std::vector<ExpertTensor>& tensors, uint32_t expert) {
  std::vector<Piece> pieces;
  for (const ExpertMatrix matrix : {ExpertMatrix::kGate, ExpertMatrix::kUp, ExpertMatrix::kDown}) {
    for (const ExpertTensor& tensor : tensors) {
      if (tensor.matrix != matrix || tensor.offsets[expert] == 0) continue;
      pieces.push_back({tensor.shards[expert], tensor.offsets[expert],
                        tensor.rows * row_bytes(tensor.types[expert], tensor.columns)});
    }
  }
  return pieces;
}

class ChecksumReader {
 public:
  ChecksumReader(const GgufFile& file, const ChecksumProgress& progress)
      : progress_(progress), buffer_(kPieceBytes) {
    size_t bounce_bytes = 0;
    for (const std::string& path : file.paths()) {
      files_.emplace_back(path, FileAccess::kDirect);
      bounce_bytes = std::max(bounce_bytes, files_.back().bounce_bytes(kPieceBytes));
    }
    bounce_ = AlignedBuffer(bounce_bytes);
  }

  uint64_t hash(const std::vector<Piece>& pieces) {
    FastHash hash;
    for (const Piece& piece : pieces) add(piece, hash);
    return hash.value();
  }
  uint64_t bytes() const noexcept { return bytes_; }
  const std::string& path(uint32_t shard) const noexcept { return files_[shard].path(); }

 private:
  void add(const Piece& piece, FastHash& hash) {
    for (uint64_t at = 0; at < piece.bytes; at += kPieceBytes) {
      const auto part = buffer_.span().first(std::min(kPieceBytes, piece.bytes - at));
      files_[piece.shard].read_exact(piece.offset + at, part, bounce_.span());
      hash.add(part);
      bytes_ += part.size();
      if (progress_ && progress_(part.size())) {
        throw Error(ErrorCode::kCancelled, "stopped by the caller");
      }
    }
  }

  const ChecksumProgress& progress_;
  AlignedBuffer buffer_;
  AlignedBuffer bounce_;
  std::vector<File> files_;
  uint64_t bytes_ = 0;
};

void note_damage(ChecksumReport& report, DamagedPart part) {
  if (report.num_damaged++ == 0) report.first_damaged = std::move(part);
}

}  // namespace

std::string describe(const DamagedPart& part) {
  const std::string what = part.tensor.empty()
                               ? std::string(part.low_copy ? "the low copy of " : "") + "expert " +
                                     std::to_string(part.expert) + " of layer " +
                                     std::to_string(part.layer)
                               : "tensor '" + part.tensor + "'";
  return part.path + ": " + what +
         " does not have the bytes that were packed (its checksum differs); the file is damaged, "
         "fetch it or pack the model again";
}

uint64_t checksum_bytes(const GgufFile& file, const ModelTensors& tensors, ChecksumScope scope) {
  const auto num_layers = static_cast<uint32_t>(tensors.layers.size());
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    const bool counts = scope == ChecksumScope::kAll || !holds_experts(tensor, num_layers);
    bytes += counts ? tensor.bytes : 0;
  }
  return bytes;
}

namespace {

// Of one layer: its experts, or (`low_copy`) those low copies that it has.
void verify_experts(const std::vector<ExpertTensor>& tensors, std::span<const uint64_t> checksums,
                    DamagedPart part, ChecksumReader& reader, ChecksumReport& report) {
  if (tensors.empty()) return;
  for (part.expert = 0; part.expert < checksums.size(); ++part.expert) {
    const std::vector<Piece> pieces = pieces_of(tensors, part.expert);
    if (pieces.empty()) continue;
    ++(part.low_copy ? report.num_low_copies : report.num_experts);
    if (reader.hash(pieces) == checksums[part.expert]) continue;
    part.path = reader.path(pieces[0].shard);
    note_damage(report, part);
  }
}

}  // namespace

ChecksumReport verify_checksums(const GgufFile& file, const ModelTensors& tensors,
                                const PackedContainer& container, ChecksumScope scope,
                                const ChecksumProgress& progress) {
  ChecksumReport report;
  ChecksumReader reader(file, progress);
  const auto num_layers = static_cast<uint32_t>(tensors.layers.size());
  for (const TensorInfo& tensor : file.tensors()) {
    if (holds_experts(tensor, num_layers)) continue;
    const uint64_t expected = container.dense_checksums.at(report.num_dense_tensors++);
    if (reader.hash({{tensor.shard, tensor.offset, tensor.bytes}}) == expected) continue;
    note_damage(report, {file.paths()[tensor.shard], tensor.name, 0, 0, false});
  }
  const size_t num_experts = container.expert_checksums.size() / std::max(1u, num_layers);
  const auto of_layer = [&](const std::vector<uint64_t>& sums, uint32_t layer) {
    return std::span(sums).subspan(sums.empty() ? 0 : layer * num_experts,
                                   sums.empty() ? 0 : num_experts);
  };
  for (uint32_t layer = 0; scope == ChecksumScope::kAll && layer < num_layers; ++layer) {
    const LayerTensors& parts = tensors.layers[layer];
    verify_experts(parts.experts, of_layer(container.expert_checksums, layer),
                   {"", "", layer, 0, false}, reader, report);
    verify_experts(parts.low_copies, of_layer(container.low_checksums, layer),
                   {"", "", layer, 0, true}, reader, report);
  }
  report.bytes = reader.bytes();
  return report;
}

}  // namespace edgemoe
