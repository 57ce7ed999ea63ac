#include "base/fast_hash.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace edgemoe {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

template <class Word>
uint64_t word_at(const std::byte* bytes) noexcept {
  Word word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

inline uint64_t mixed(uint64_t lane, uint64_t word) noexcept {
  return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

// Takes whole stripes of 32 bytes. The lanes are locals: they stay in registers.
void add_stripes(uint64_t lanes[4], const std::byte* bytes, size_t num_stripes) noexcept {
  uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
  for (size_t stripe = 0; stripe < num_stripes; ++stripe, bytes += 32) {
    a = mixed(a, word_at<uint64_t>(bytes));
    b = mixed(b, word_at<uint64_t>(bytes + 8));
    c = mixed(c, word_at<uint64_t>(bytes + 16));
    d = mixed(d, word_at<uint64_t>(bytes + 24));
  }
  lanes[0] = a, lanes[1] = b, lanes[2] = c, lanes[3] = d;
}

uint64_t joined(const uint64_t lanes[4]) noexcept {
  uint64_t hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
                  std::rotl(lanes[3], 18);
  for (int lane = 0; lane < 4; ++lane) {
    hash = (hash ^ mixed(0, lanes[lane])) * kPrime1 + kPrime4;
  }
  return hash;
}

// The last bytes, fewer than a stripe: words of eight, at most one of four, single bytes.
uint64_t with_rest(uint64_t hash, const std::byte* rest, size_t count) noexcept {
  for (; count >= 8; rest += 8, count -= 8) {
    hash = std::rotl(hash ^ mixed(0, word_at<uint64_t>(rest)), 27) * kPrime1 + kPrime4;
  }
  if (count >= 4) {
    hash = std::rotl(hash ^ (word_at<uint32_t>(rest) * kPrime1), 23) * kPrime2 + kPrime3;
    rest += 4, count -= 4;
  }
  for (; count > 0; ++rest, --count) {
    hash = std::rotl(hash ^ (static_cast<uint64_t>(*rest) * kPrime5), 11) * kPrime1;
  }
  return hash;
}

uint64_t avalanche(uint64_t hash) noexcept {
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace

void FastHash::add(std::span<const std::byte> bytes) noexcept {
  const size_t waiting = num_bytes_ % kStripeBytes;
  num_bytes_ += bytes.size();
  if (waiting > 0) {
    const size_t taken = std::min(kStripeBytes - waiting, bytes.size());
    if (taken > 0) std::memcpy(rest_ + waiting, bytes.data(), taken);
    if (waiting + taken < kStripeBytes) return;
    add_stripes(lanes_, rest_, 1);
    bytes = bytes.subspan(taken);
  }
  const size_t num_stripes = bytes.size() / kStripeBytes;
  add_stripes(lanes_, bytes.data(), num_stripes);
  bytes = bytes.subspan(num_stripes * kStripeBytes);
  if (!bytes.empty()) std::memcpy(rest_, bytes.data(), bytes.size());
}

uint64_t FastHash::value() const noexcept {
  const uint64_t begun = num_bytes_ < kStripeBytes ? kPrime5 : joined(lanes_);
  return avalanche(with_rest(begun + num_bytes_, rest_, num_bytes_ % kStripeBytes));
}

uint64_t fast_hash(std::span<const std::byte> bytes) noexcept {
  FastHash hash;
  hash.add(bytes);
  return hash.value();
}

}  // namespace edgemoe
