#include "quant/layout.h"

#include <algorithm>
#include <cstring>

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

enum class Direction { kRegroup, kUngroup };

// Moves one field of a block column of a group; returns the packed bytes after it.
template <Direction kDirection, size_t kUnit>
size_t move_field(const PackedField& field, size_t group_rows, size_t row_stride, size_t packed,
                  const std::byte* from, std::byte* to) noexcept {
  for (size_t unit = 0; unit < field.bytes; unit += kUnit) {
    for (size_t row = 0; row < group_rows; ++row) {
      const size_t plain = row * row_stride + field.offset + unit;
      if constexpr (kDirection == Direction::kRegroup) {
        std::memcpy(to + packed, from + plain, kUnit);
      } else {
        std::memcpy(to + plain, from + packed, kUnit);
      }
      packed += kUnit;
    }
  }
  return packed;
}

// Moves one block column of a group of `group_rows` rows between the layouts.
template <Direction kDirection>
void move_block_column(std::span<const PackedField> fields, size_t group_rows, size_t row_stride,
                       const std::byte* from, std::byte* to) noexcept {
  constexpr auto move_units_of = [](size_t unit) {
    switch (unit) {
      case 1:
        return move_field<kDirection, 1>;
      case 2:
        return move_field<kDirection, 2>;
      case 4:
        return move_field<kDirection, 4>;
      default:
        return move_field<kDirection, 8>;
    }
  };
  size_t packed = 0;
  for (const PackedField& field : fields) {
    packed = move_units_of(field.unit)(field, group_rows, row_stride, packed, from, to);
  }
}

template <Direction kDirection>
void move_matrix(QuantType type, std::byte* data, size_t rows, size_t columns,
                 std::byte* scratch) noexcept {
  const std::span<const PackedField> fields = packed_fields(type);
  if (fields.empty()) return;
  const size_t stride = row_bytes(type, columns);
  const size_t block_bytes = traits(type).block_bytes;
  for (size_t first = 0; first < rows; first += kRowGroup) {
    const size_t group_rows = std::min(kRowGroup, rows - first);
    std::byte* group = data + first * stride;
    std::memcpy(scratch, group, group_rows * stride);
    for (size_t block = 0; block < stride / block_bytes; ++block) {
      const size_t packed = block * block_bytes * group_rows;
      const size_t plain = block * block_bytes;
      if constexpr (kDirection == Direction::kRegroup) {
        move_block_column<kDirection>(fields, group_rows, stride, scratch + plain, group + packed);
      } else {
        move_block_column<kDirection>(fields, group_rows, stride, scratch + packed, group + plain);
      }
    }
  }
}

}  // namespace

std::span<const PackedField> packed_fields(QuantType type) noexcept {
  switch (type) {
    case QuantType::kQ4_0:
      return kQ4_0Fields;
    case QuantType::kQ4_1:
      return kQ4_1Fields;
    case QuantType::kQ5_0:
      return kQ5_0Fields;
    case QuantType::kQ5_1:
      return kQ5_1Fields;
    case QuantType::kQ8_0:
      return kQ8_0Fields;
    case QuantType::kQ2_K:
      return kQ2_KFields;
    case QuantType::kQ3_K:
      return kQ3_KFields;
    case QuantType::kQ4_K:
      return kQ4_KFields;
    case QuantType::kQ5_K:
      return kQ5_KFields;
    case QuantType::kQ6_K:
      return kQ6_KFields;
    case QuantType::kIQ2_XXS:
      return kIQ2_XXSFields;
    case QuantType::kIQ2_XS:
      return kIQ2_XSFields;
    case QuantType::kIQ2_S:
      return kIQ2_SFields;
    case QuantType::kIQ3_XXS:
      return kIQ3_XXSFields;
    case QuantType::kIQ3_S:
      return kIQ3_SFields;
    case QuantType::kIQ4_NL:
      return kIQ4_NLFields;
    case QuantType::kIQ4_XS:
      return kIQ4_XSFields;
    case QuantType::kMXFP4:
      return kMXFP4Fields;
    default:
      return {};
  }
}

void regroup(QuantType type, std::byte* data, size_t rows, size_t columns,
             std::byte* scratch) noexcept {
  move_matrix<Direction::kRegroup>(type, data, rows, columns, scratch);
}

void ungroup(QuantType type, std::byte* data, size_t rows, size_t columns,
             std::byte* scratch) noexcept {
  move_matrix<Direction::kUngroup>(type, data, rows, columns, scratch);
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
