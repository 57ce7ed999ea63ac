#include "base/fast_hash.h"

#include "test.h"

namespace edgemoe {
namespace {

std::vector<std::byte> pattern(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>((i * 131 + 17) & 0xFF);
  return bytes;
}

// Values of the reference implementation (xxhash 0.8) for the same bytes.
TEST("the hash is XXH64") {
  constexpr struct {
    size_t count;
    uint64_t hash;
  } kKnown[] = {{0, 0xEF46DB3751D8E999},  {1, 0xAD10CD9780AC4FF7},  {3, 0x40626D96276E4594},
                {4, 0x882207C122C76E23},  {8, 0x90FDA2F089FA86DE},  {14, 0x4DF943FE248C8BBA},
                {31, 0x44CC9EFE5D2D0233}, {32, 0x0E1AAB1D173CF196}, {33, 0x5C820B4B4FE28FDC},
                {63, 0x1153D36CADE87066}, {64, 0xD4C20EF54CBC9F67}, {101, 0x48EF436C61CA8303}};
  for (const auto& known : kKnown) CHECK_EQUAL(fast_hash(pattern(known.count)), known.hash);
}

TEST("the hash does not depend on how the bytes were cut") {
  const std::vector<std::byte> bytes = pattern(300);
  const std::span<const std::byte> all(bytes);
  for (size_t first = 0; first <= 80; ++first) {
    for (size_t second : {0, 1, 7, 32, 33, 64, 65}) {
      FastHash hash;
      hash.add(all.first(first));
      hash.add(all.subspan(first, second));
      hash.value();
      hash.add(all.subspan(first + second));
      CHECK_EQUAL(hash.value(), fast_hash(all));
    }
  }
}

TEST("every flipped bit changes the hash") {
  std::vector<std::byte> bytes = pattern(77);
  const uint64_t whole = fast_hash(bytes);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    CHECK(fast_hash(bytes) != whole);
    bytes[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
  }
}

}  // namespace
}  // namespace edgemoe
