#include "experts/saved_state.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace edgemoe {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kMagic = 0x54534d45;  // "EMST"

struct Header {
  uint32_t magic = kMagic;
  SavedStateKind kind;
  uint64_t payload_bytes = 0;
  uint64_t checksum = 0;  // of the payload
};
static_assert(sizeof(Header) == 40);

// FNV-1a over words: finds damage, is no protection against intent.
uint64_t checksum_of(std::span<const std::byte> bytes) noexcept {
  constexpr uint64_t kPrime = 0x100000001b3;
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;  // so that the high bits of a word reach the low ones
  }
  return hash;
}

}  // namespace

std::vector<std::byte> seal_state(const SavedStateKind& kind, std::span<const std::byte> payload) {
  const Header header{kMagic, kind, payload.size(), checksum_of(payload)};
  std::vector<std::byte> sealed(sizeof header + payload.size());
  std::memcpy(sealed.data(), &header, sizeof header);
  if (!payload.empty()) std::memcpy(sealed.data() + sizeof header, payload.data(), payload.size());
  return sealed;
}

std::span<const std::byte> open_state(const SavedStateKind& kind, size_t payload_bytes,
                                      std::span<const std::byte> sealed) noexcept {
  Header header;
  if (sealed.size() != sizeof header + payload_bytes) return {};
  std::memcpy(&header, sealed.data(), sizeof header);
  const std::span<const std::byte> payload = sealed.subspan(sizeof header);
  const Header expected{kMagic, kind, payload_bytes, checksum_of(payload)};
  if (std::memcmp(&header, &expected, sizeof header) != 0) return {};
  return payload;
}

}  // namespace edgemoe
