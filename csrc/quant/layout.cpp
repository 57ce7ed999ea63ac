#include "quant/layout.h"

#include <algorithm>
#include <cstring>

namespace edgemoe {
namespace {

// Scales first, then codes in 8-byte units: a 64-byte load brings 8 bytes of each of the 8 rows.
constexpr PackedField kQ4_0Fields[] = {{0, 2, 2}, {2, 16, 8}};
constexpr PackedField kQ8_0Fields[] = {{0, 2, 2}, {2, 32, 8}};
constexpr PackedField kQ4_KFields[] = {{0, 2, 2}, {2, 2, 2}, {4, 12, 4}, {16, 128, 8}};
constexpr PackedField kQ6_KFields[] = {{208, 2, 2}, {192, 16, 8}, {0, 128, 8}, {128, 64, 8}};

enum class Direction { kRegroup, kUngroup };

// Moves one block column of a group of `group_rows` rows between the layouts.
template <Direction kDirection>
void move_block_column(std::span<const PackedField> fields, size_t group_rows, size_t row_stride,
                       const std::byte* from, std::byte* to) noexcept {
  size_t packed = 0;
  for (const PackedField& field : fields) {
    for (size_t unit = 0; unit < field.bytes; unit += field.unit) {
      for (size_t row = 0; row < group_rows; ++row) {
        const size_t plain = row * row_stride + field.offset + unit;
        if constexpr (kDirection == Direction::kRegroup) {
          std::memcpy(to + packed, from + plain, field.unit);
        } else {
          std::memcpy(to + plain, from + packed, field.unit);
        }
        packed += field.unit;
      }
    }
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
    case QuantType::kQ8_0:
      return kQ8_0Fields;
    case QuantType::kQ4_K:
      return kQ4_KFields;
    case QuantType::kQ6_K:
      return kQ6_KFields;
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
