// What the predictors have learned, as bytes that outlive the process: a header and a checksum.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace edgemoe {

// Says what the bytes are; two states fit only when all of it agrees.
struct SavedStateKind {
  uint32_t name = 0;     // which predictor
  uint32_t version = 0;  // of its layout
  std::array<uint32_t, 3> dimensions{};
};

// The payload behind a header. Numbers are little-endian, as every machine that we support is.
std::vector<std::byte> seal_state(const SavedStateKind& kind, std::span<const std::byte> payload);

// The payload of sealed bytes; empty when they are damaged, cut, or of another kind or size.
std::span<const std::byte> open_state(const SavedStateKind& kind, size_t payload_bytes,
                                      std::span<const std::byte> sealed) noexcept;

}  // namespace edgemoe
