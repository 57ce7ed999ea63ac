#include "quant/layout.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace edgemoe {
namespace {

// Scales first, then codes in 8-byte units: 64 bytes hold 8 bytes of each of the 8 rows. Small
// fields of which kernels want one byte of every row at a time come in units of 1.
constexpr PackedField kQ4_0Fields[] = {{0, 2, 2}, {2, 16, 8}};
constexpr PackedField kQ4_1Fields[] = {{0, 2, 2}, {2, 2, 2}, {4, 16, 8}};
constexpr PackedField kQ5_0Fields[] = {{0, 2, 2}, {2, 4, 1}, {6, 16, 8}};
constexpr PackedField kQ5_1Fields[] = {{0, 2, 2}, {2, 2, 2}, {4, 4, 1}, {8, 16, 8}};
constexpr PackedField kQ8_0Fields[] = {{0, 2, 2}, {2, 32, 8}};
constexpr PackedField kQ2_KFields[] = {{80, 2, 2}, {82, 2, 2}, {0, 16, 1}, {16, 64, 8}};
constexpr PackedField kQ3_KFields[] = {{108, 2, 2}, {96, 12, 1}, {0, 32, 8}, {32, 64, 8}};
constexpr PackedField kQ4_KFields[] = {{0, 2, 2}, {2, 2, 2}, {4, 12, 1}, {16, 128, 8}};
constexpr PackedField kQ5_KFields[] = {{0, 2, 2}, {2, 2, 2}, {4, 12, 1}, {16, 32, 8}, {48, 128, 8}};
constexpr PackedField kQ6_KFields[] = {{208, 2, 2}, {192, 16, 1}, {0, 128, 8}, {128, 64, 8}};
constexpr PackedField kIQ2_XXSFields[] = {{0, 2, 2}, {2, 64, 1}};
constexpr PackedField kIQ2_XSFields[] = {{0, 2, 2}, {66, 8, 1}, {2, 64, 2}};
constexpr PackedField kIQ2_SFields[] = {{0, 2, 2}, {74, 8, 1}, {34, 32, 1}, {66, 8, 1}, {2, 32, 1}};
constexpr PackedField kIQ3_XXSFields[] = {{0, 2, 2}, {66, 32, 1}, {2, 64, 1}};
constexpr PackedField kIQ3_SFields[] = {
    {0, 2, 2}, {106, 4, 1}, {74, 32, 1}, {66, 8, 1}, {2, 64, 1}};
constexpr PackedField kIQ4_NLFields[] = {{0, 2, 2}, {2, 16, 8}};
constexpr PackedField kIQ4_XSFields[] = {{0, 2, 2}, {2, 2, 1}, {4, 4, 1}, {8, 128, 8}};
constexpr PackedField kMXFP4Fields[] = {{0, 1, 1}, {1, 16, 8}};

// Moves one field of a block column of a group to where units of it lie side by side; returns the
// packed bytes after it. Full groups are unrolled: an expert is regrouped whenever it was read.
template <size_t kUnit>
size_t pack_field(const PackedField& field, size_t group_rows, size_t row_stride, size_t packed,
                  const std::byte* from, std::byte* to) noexcept {
  for (size_t unit = 0; unit < field.bytes; unit += kUnit) {
    const std::byte* plain = from + field.offset + unit;
    if (group_rows == kRowGroup) {
#pragma GCC unroll 8
      for (size_t row = 0; row < kRowGroup; ++row) {
        std::memcpy(to + packed + row * kUnit, plain + row * row_stride, kUnit);
      }
    } else {
      for (size_t row = 0; row < group_rows; ++row) {
        std::memcpy(to + packed + row * kUnit, plain + row * row_stride, kUnit);
      }
    }
    packed += group_rows * kUnit;
  }
  return packed;
}

// The list is known when this is compiled, so that its loops have constant bounds.
template <const auto& kFields>
void pack_group(size_t group_rows, size_t row_stride, const std::byte* from,
                std::byte* to) noexcept {
  size_t block_bytes = 0;
  for (const PackedField& field : kFields) block_bytes += field.bytes;
  for (size_t plain = 0; plain < row_stride; plain += block_bytes) {
    size_t packed = plain * group_rows;
    [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
      ((packed = pack_field<kFields[kIndex].unit>(kFields[kIndex], group_rows, row_stride, packed,
                                                  from + plain, to)),
       ...);
    }(std::make_index_sequence<std::size(kFields)>());
  }
}

// The inverse, which nothing that runs often needs: any list.
void unpack_group(std::span<const PackedField> fields, size_t block_bytes, size_t group_rows,
                  size_t row_stride, const std::byte* from, std::byte* to) noexcept {
  for (size_t plain = 0; plain < row_stride; plain += block_bytes) {
    const std::byte* packed = from + plain * group_rows;
    for (const PackedField& field : fields) {
      for (size_t unit = 0; unit < field.bytes; unit += field.unit) {
        for (size_t row = 0; row < group_rows; ++row) {
          std::memcpy(to + plain + row * row_stride + field.offset + unit, packed, field.unit);
          packed += field.unit;
        }
      }
    }
  }
}

// A list of fields and the function that was compiled for it.
struct Packing {
  std::span<const PackedField> fields;
  void (*pack_group)(size_t, size_t, const std::byte*, std::byte*) noexcept = nullptr;
};
template <const auto& kFields>
constexpr Packing packing() noexcept {
  return {kFields, pack_group<kFields>};
}

Packing packing_of(QuantType type) noexcept {
  switch (type) {
    case QuantType::kQ4_0:
      return packing<kQ4_0Fields>();
    case QuantType::kQ4_1:
      return packing<kQ4_1Fields>();
    case QuantType::kQ5_0:
      return packing<kQ5_0Fields>();
    case QuantType::kQ5_1:
      return packing<kQ5_1Fields>();
    case QuantType::kQ8_0:
      return packing<kQ8_0Fields>();
    case QuantType::kQ2_K:
      return packing<kQ2_KFields>();
    case QuantType::kQ3_K:
      return packing<kQ3_KFields>();
    case QuantType::kQ4_K:
      return packing<kQ4_KFields>();
    case QuantType::kQ5_K:
      return packing<kQ5_KFields>();
    case QuantType::kQ6_K:
      return packing<kQ6_KFields>();
    case QuantType::kIQ2_XXS:
      return packing<kIQ2_XXSFields>();
    case QuantType::kIQ2_XS:
      return packing<kIQ2_XSFields>();
    case QuantType::kIQ2_S:
      return packing<kIQ2_SFields>();
    case QuantType::kIQ3_XXS:
      return packing<kIQ3_XXSFields>();
    case QuantType::kIQ3_S:
      return packing<kIQ3_SFields>();
    case QuantType::kIQ4_NL:
      return packing<kIQ4_NLFields>();
    case QuantType::kIQ4_XS:
      return packing<kIQ4_XSFields>();
    case QuantType::kMXFP4:
      return packing<kMXFP4Fields>();
    default:
      return {};
  }
}

}  // namespace

std::span<const PackedField> packed_fields(QuantType type) noexcept {
  return packing_of(type).fields;
}

void regroup(QuantType type, std::byte* data, size_t rows, size_t columns,
             std::byte* scratch) noexcept {
  const Packing packing = packing_of(type);
  if (packing.fields.empty()) return;
  const size_t stride = row_bytes(type, columns);
  for (size_t first = 0; first < rows; first += kRowGroup) {
    const size_t group_rows = std::min(kRowGroup, rows - first);
    std::byte* group = data + first * stride;
    std::memcpy(scratch, group, group_rows * stride);
    packing.pack_group(group_rows, stride, scratch, group);
  }
}

void ungroup(QuantType type, std::byte* data, size_t rows, size_t columns,
             std::byte* scratch) noexcept {
  const std::span<const PackedField> fields = packed_fields(type);
  if (fields.empty()) return;
  const size_t stride = row_bytes(type, columns);
  for (size_t first = 0; first < rows; first += kRowGroup) {
    const size_t group_rows = std::min(kRowGroup, rows - first);
    std::byte* group = data + first * stride;
    std::memcpy(scratch, group, group_rows * stride);
    unpack_group(fields, traits(type).block_bytes, group_rows, stride, scratch, group);
  }
}

void extract_block(QuantType type, const std::byte* matrix, size_t rows, size_t columns, size_t row,
                   size_t block, std::byte* out) noexcept {
  const size_t stride = row_bytes(type, columns);
  const size_t block_bytes = traits(type).block_bytes;
  const std::span<const PackedField> fields = packed_fields(type);
  if (fields.empty()) {
    std::memcpy(out, matrix + row * stride + block * block_bytes, block_bytes);
    return;
  }
  const size_t first = row / kRowGroup * kRowGroup;
  const size_t group_rows = std::min(kRowGroup, rows - first);
  const std::byte* packed = matrix + first * stride + block * block_bytes * group_rows;
  for (const PackedField& field : fields) {
    for (size_t unit = 0; unit < field.bytes; unit += field.unit) {
      std::memcpy(out + field.offset + unit, packed + (row - first) * field.unit, field.unit);
      packed += group_rows * field.unit;
    }
  }
}

}  // namespace edgemoe
