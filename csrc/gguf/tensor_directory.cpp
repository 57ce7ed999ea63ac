#include "gguf/tensor_directory.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "base/units.h"

namespace edgemoe {
namespace {

constexpr uint64_t kMaxNameBytes = 127;
constexpr uint32_t kMaxDimensions = 4;
// With at most 4 bytes per element (F32 is the widest type), no size below can overflow.
constexpr uint64_t kMaxElements = uint64_t{1} << 56;

struct KnownType {
  uint32_t ggml_id;
  std::string_view name;
};
constexpr KnownType kRemovedTypes[] = {
    {4, "Q4_2"},      {5, "Q4_3"},        {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"},
};
constexpr KnownType kOtherTypes[] = {
    {9, "Q8_1"}, {15, "Q8_K"}, {24, "I8"}, {25, "I16"}, {26, "I32"}, {27, "I64"}, {28, "F64"},
};

std::string refusal(uint32_t ggml_id) {
  const std::string number = "type " + std::to_string(ggml_id);
  for (const KnownType& type : kRemovedTypes) {
    if (type.ggml_id != ggml_id) continue;
    return number + " (" + std::string(type.name) +
           ") was removed from GGUF; quantise the model again with a current tool";
  }
  for (const KnownType& type : kOtherTypes) {
    if (type.ggml_id != ggml_id) continue;
    return number + " (" + std::string(type.name) + ") is not supported for weights";
  }
  return number + " is unknown; the file is damaged or newer than this version of edgemoe";
}

}  // namespace

void TensorDirectory::read_tensor() {
  const uint64_t at = cursor_.offset();
  TensorInfo tensor;
  cursor_.read_string(tensor.name, kMaxNameBytes, {"tensor name"});
  const Field field{"tensor", tensor.name};
  if (tensor.name.empty()) cursor_.fail({"tensor name"}, at, "it is empty");
  const bool is_text =
      std::none_of(tensor.name.begin(), tensor.name.end(), [](unsigned char c) { return c < ' '; });
  if (!is_text) cursor_.fail(field, at, "a name has no control characters");
  if (!names_.insert(tensor.name).second) cursor_.fail(field, at, "the name appears twice");
  read_shape(tensor);
  read_type(tensor);
  offset_fields_.push_back(cursor_.offset());
  tensor.offset = cursor_.read<uint64_t>({"tensor", tensor.name, "offset"});
  tensors_.push_back(std::move(tensor));
}

void TensorDirectory::read_shape(TensorInfo& tensor) {
  const uint64_t at = cursor_.offset();
  const Field dimensions{"tensor", tensor.name, "number of dimensions"};
  tensor.num_dimensions = cursor_.read<uint32_t>(dimensions);
  if (tensor.num_dimensions < 1 || tensor.num_dimensions > kMaxDimensions) {
    cursor_.fail(dimensions, at, std::to_string(tensor.num_dimensions) + "; 1 to 4 are possible");
  }
  const Field shape{"tensor", tensor.name, "shape"};
  uint64_t elements = 1;
  for (uint32_t i = 0; i < tensor.num_dimensions; ++i) {
    const uint64_t size_at = cursor_.offset();
    tensor.shape[i] = cursor_.read<uint64_t>(shape);
    if (tensor.shape[i] == 0) {
      cursor_.fail(shape, size_at, "dimension " + std::to_string(i) + " is 0");
    }
    const std::optional<uint64_t> product = checked_multiply(elements, tensor.shape[i]);
    if (!product || *product > kMaxElements) {
      cursor_.fail(shape, size_at,
                   "dimension " + std::to_string(i) + " is " + std::to_string(tensor.shape[i]) +
                       "; the tensor has too many elements");
    }
    elements = *product;
  }
}

void TensorDirectory::read_type(TensorInfo& tensor) {
  const uint64_t at = cursor_.offset();
  const Field field{"tensor", tensor.name, "type"};
  const auto id = cursor_.read<uint32_t>(field);
  const std::optional<QuantType> type = quant_type_from_ggml_id(id);
  if (!type) cursor_.fail(ErrorCode::kUnsupported, field, at, refusal(id));
  tensor.type = *type;
  const QuantTraits& quant = traits(*type);
  if (tensor.columns() % quant.block_elements != 0) {
    cursor_.fail(field, at,
                 "rows of " + std::to_string(tensor.columns()) + " elements are not whole " +
                     std::string(quant.name) + " blocks of " +
                     std::to_string(quant.block_elements));
  }
  tensor.bytes = row_bytes(*type, tensor.columns()) * tensor.rows();
}

std::vector<TensorInfo> TensorDirectory::place(uint64_t data_begin, uint64_t alignment,
                                               uint64_t file_bytes) {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].offset % alignment != 0) {
      cursor_.fail({"tensor", tensors_[i].name, "offset"}, offset_fields_[i],
                   std::to_string(tensors_[i].offset) + " is not a multiple of the alignment " +
                       std::to_string(alignment));
    }
    place_tensor(i, data_begin, file_bytes);
  }
  check_overlaps();
  return std::move(tensors_);
}

void TensorDirectory::place_tensor(size_t index, uint64_t data_begin, uint64_t file_bytes) {
  TensorInfo& tensor = tensors_[index];
  const std::optional<uint64_t> begin = checked_add(data_begin, tensor.offset);
  const std::optional<uint64_t> end = begin ? checked_add(*begin, tensor.bytes) : std::nullopt;
  if (!end || *end > file_bytes) {
    cursor_.fail({"tensor", tensor.name, "offset"}, offset_fields_[index],
                 "its " + std::to_string(tensor.bytes) + " bytes at data offset " +
                     std::to_string(tensor.offset) + " reach past the end of the file (" +
                     std::to_string(file_bytes) +
                     " bytes); the file is truncated or damaged, fetch it again");
  }
  tensor.offset = *begin;
}

// Gaps are allowed. Sorted, so that a million tensors are no quadratic trap.
void TensorDirectory::check_overlaps() const {
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [this](size_t a, size_t b) { return tensors_[a].offset < tensors_[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorInfo& before = tensors_[order[i - 1]];
    const TensorInfo& after = tensors_[order[i]];
    if (before.offset + before.bytes <= after.offset) continue;
    cursor_.fail({"tensor", after.name, "offset"}, offset_fields_[order[i]],
                 "it overlaps tensor '" + shown(before.name) + "'");
  }
}

}  // namespace edgemoe
