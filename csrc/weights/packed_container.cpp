#include "weights/packed_container.h"

#include <limits>

#include "base/error.h"
#include "weights/container_keys.h"
#include "weights/tensor_names.h"

namespace edgemoe {
namespace {

std::string about(const Metadata& metadata, std::string_view key) {
  return metadata.source() + ": metadata '" + std::string(key) + "' ";
}

void check_version(const Metadata& metadata, std::string_view key, uint32_t known) {
  const uint64_t found = metadata.get_uint(key, std::numeric_limits<uint64_t>::max());
  if (found == known) return;
  throw Error(ErrorCode::kUnsupported,
              about(metadata, key) + "is " + std::to_string(found) +
                  "; this version of edgemoe reads " + std::to_string(known) +
                  ": install a newer one, or pack the model again with this one");
}

std::vector<uint64_t> checksums(const Metadata& metadata, std::string_view key, uint64_t count) {
  const MetadataValue* value = metadata.find(key);
  if (value == nullptr) {
    throw Error(ErrorCode::kFormat, about(metadata, key) + "is missing; the file is damaged");
  }
  const auto* numbers = std::get_if<std::vector<uint64_t>>(value);
  if (numbers == nullptr) {
    throw Error(ErrorCode::kFormat, about(metadata, key) + "is not an array of unsigned integers");
  }
  if (numbers->size() != count) {
    throw Error(ErrorCode::kFormat, about(metadata, key) + "has " +
                                        std::to_string(numbers->size()) + " elements; expected " +
                                        std::to_string(count) + "; the file is damaged");
  }
  return *numbers;
}

// Errors: kFormat for low copies in a file whose metadata do not say what they are.
void check_low_copies_are_named(const GgufFile& file, uint32_t num_layers) {
  if (file.metadata().contains(container::kLowVersion)) return;
  for (const TensorInfo& tensor : file.tensors()) {
    if (!holds_experts(tensor, num_layers) || !meaning_of(tensor.name)->is_low_copy) continue;
    throw Error(ErrorCode::kFormat, file.paths()[tensor.shard] + ": tensor '" + tensor.name +
                                        "' is a low copy of an expert, but metadata '" +
                                        std::string(container::kLowVersion) +
                                        "' is missing; pack the model again");
  }
}

// Experts that share a tensor have the layout of stock files.
uint64_t count_dense(const GgufFile& file, uint32_t num_layers) {
  uint64_t count = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    if (!holds_experts(tensor, num_layers)) {
      ++count;
      continue;
    }
    if (meaning_of(tensor.name)->expert) continue;
    throw Error(ErrorCode::kFormat, file.paths()[tensor.shard] + ": tensor '" + tensor.name +
                                        "' holds all experts of a layer, but metadata '" +
                                        std::string(container::kLayoutVersion) +
                                        "' says that experts are packed one by one; pack the "
                                        "model again");
  }
  return count;
}

}  // namespace

bool holds_experts(const TensorInfo& tensor, uint32_t num_layers) {
  const std::optional<TensorMeaning> meaning = meaning_of(tensor.name);
  return meaning && meaning->expert_matrix && !meaning->is_scale && meaning->layer < num_layers;
}

std::optional<PackedContainer> read_packed_container(const GgufFile& file, uint32_t num_layers,
                                                     uint32_t num_experts) {
  const Metadata& metadata = file.metadata();
  check_low_copies_are_named(file, num_layers);
  if (!metadata.contains(container::kFormatVersion) &&
      !metadata.contains(container::kLayoutVersion) && !metadata.contains(container::kLowVersion)) {
    return std::nullopt;
  }
  check_version(metadata, container::kFormatVersion, kContainerFormat);
  check_version(metadata, container::kLayoutVersion, kContainerLayout);
  PackedContainer container;
  container.dense_checksums =
      checksums(metadata, container::kDenseChecksums, count_dense(file, num_layers));
  container.expert_checksums =
      checksums(metadata, container::kExpertChecksums, uint64_t{num_layers} * num_experts);
  if (metadata.contains(container::kLowVersion)) {
    check_version(metadata, container::kLowVersion, kLowCopyVersion);
    container.low_checksums =
        checksums(metadata, container::kLowChecksums, uint64_t{num_layers} * num_experts);
  }
  container.plan = metadata.get_string_or(container::kPlan, "");
  container.source = metadata.get_string_or(container::kSource, "");
  return container;
}

}  // namespace edgemoe
