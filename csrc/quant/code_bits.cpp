#include "quant/code_bits.h"

#include <cstring>

#include "quant/value_tables.h"

namespace edgemoe {
namespace {

// Index of each value of a table of 16.
struct Indices {
  uint8_t index[256] = {};
  explicit constexpr Indices(const int8_t (&values)[16]) noexcept {
    for (size_t i = 16; i-- > 0;) index[static_cast<uint8_t>(values[i])] = static_cast<uint8_t>(i);
  }
  int operator()(int8_t value) const noexcept { return index[static_cast<uint8_t>(value)]; }
};
constexpr Indices kIq4Index(kIq4Values);
constexpr Indices kFp4Index(kFp4DoubledValues);

std::byte to_byte(int value) noexcept {
  return static_cast<std::byte>(value);
}

// 32 codes: the first half low, the second half high. `nibble` turns a code into 4 bits.
template <class Nibble>
void store_nibbles(const int8_t* codes, Nibble nibble, std::byte* to) noexcept {
  for (size_t i = 0; i < 16; ++i) {
    to[i] = to_byte((nibble(codes[i]) & 15) | (nibble(codes[i + 16]) & 15) << 4);
  }
}

template <int kBias>
int biased(int8_t code) noexcept {
  return code + kBias;
}

template <int kBias>
void store_fifth_bits(const int8_t* codes, std::byte* to) noexcept {
  uint32_t bits = 0;
  for (size_t i = 0; i < 32; ++i) bits |= (static_cast<uint32_t>(codes[i] + kBias) >> 4 & 1) << i;
  std::memcpy(to, &bits, sizeof bits);
}

// Four runs of 32 codes in two bits each, for both halves of a block.
template <int kBias>
void store_pairs(const int8_t* codes, std::byte* to) noexcept {
  for (size_t half = 0; half < 2; ++half, codes += 128, to += 32) {
    for (size_t i = 0; i < 32; ++i) {
      int bits = 0;
      for (size_t run = 0; run < 4; ++run) bits |= ((codes[run * 32 + i] + kBias) & 3) << (2 * run);
      to[i] = to_byte(bits);
    }
  }
}

// Pairs of runs of 32: the low nibbles, then the high ones.
void store_nibble_runs(const int8_t* codes, std::byte* to) noexcept {
  for (size_t pair = 0; pair < 4; ++pair, codes += 64, to += 32) {
    for (size_t i = 0; i < 32; ++i) to[i] = to_byte((codes[i] & 15) | (codes[i + 32] & 15) << 4);
  }
}

void store_Q4_0(const int8_t* codes, std::byte* block) noexcept {
  store_nibbles(codes, biased<8>, block + 2);
}

void store_Q4_1(const int8_t* codes, std::byte* block) noexcept {
  store_nibbles(codes, biased<0>, block + 4);
}

void store_Q5_0(const int8_t* codes, std::byte* block) noexcept {
  store_fifth_bits<16>(codes, block + 2);
  store_nibbles(codes, biased<16>, block + 6);
}

void store_Q5_1(const int8_t* codes, std::byte* block) noexcept {
  store_fifth_bits<0>(codes, block + 4);
  store_nibbles(codes, biased<0>, block + 8);
}

void store_Q8_0(const int8_t* codes, std::byte* block) noexcept {
  std::memcpy(block + 2, codes, 32);
}

void store_IQ4_NL(const int8_t* codes, std::byte* block) noexcept {
  store_nibbles(codes, kIq4Index, block + 2);
}

void store_MXFP4(const int8_t* codes, std::byte* block) noexcept {
  store_nibbles(codes, kFp4Index, block + 1);
}

void store_IQ4_XS(const int8_t* codes, std::byte* block) noexcept {
  for (size_t part = 0; part < 8; ++part) {
    store_nibbles(codes + part * 32, kIq4Index, block + 8 + part * 16);
  }
}

void store_Q2_K(const int8_t* codes, std::byte* block) noexcept {
  store_pairs<0>(codes, block + 16);
}

void store_Q3_K(const int8_t* codes, std::byte* block) noexcept {
  for (size_t i = 0; i < 32; ++i) {
    int high = 0;
    for (size_t run = 0; run < 8; ++run) high |= (codes[run * 32 + i] >= 0 ? 1 : 0) << run;
    block[i] = to_byte(high);
  }
  store_pairs<4>(codes, block + 32);
}

void store_Q4_K(const int8_t* codes, std::byte* block) noexcept {
  store_nibble_runs(codes, block + 16);
}

void store_Q5_K(const int8_t* codes, std::byte* block) noexcept {
  for (size_t i = 0; i < 32; ++i) {
    int high = 0;
    for (size_t run = 0; run < 8; ++run) high |= (codes[run * 32 + i] >> 4 & 1) << run;
    block[16 + i] = to_byte(high);
  }
  store_nibble_runs(codes, block + 48);
}

void store_Q6_K(const int8_t* codes, std::byte* block) noexcept {
  for (size_t half = 0; half < 2; ++half, codes += 128) {
    for (size_t i = 0; i < 64; ++i) {
      const int low = codes[i] + 32;
      const int high = codes[i + 64] + 32;
      block[half * 64 + i] = to_byte((low & 15) | (high & 15) << 4);
    }
    for (size_t i = 0; i < 32; ++i) {
      int bits = 0;
      for (size_t run = 0; run < 4; ++run) bits |= ((codes[run * 32 + i] + 32) >> 4) << (2 * run);
      block[128 + half * 32 + i] = to_byte(bits);
    }
  }
}

constexpr size_t kParts = 8;  // of 32 columns
constexpr size_t kSignGroups = 32;

// Seven signs of each of four groups; the scale in the highest bits stays.
void store_part_signs(const uint8_t* signs, std::byte* word) noexcept {
  uint32_t bits;
  std::memcpy(&bits, word, sizeof bits);
  bits &= 0xF0000000u;
  for (size_t group = 0; group < 4; ++group) {
    bits |= static_cast<uint32_t>(signs[group] & 127) << (7 * group);
  }
  std::memcpy(word, &bits, sizeof bits);
}

void store_IQ2_XXS(const uint16_t* entries, const uint8_t* signs, std::byte* block) noexcept {
  for (size_t part = 0; part < kParts; ++part) {
    std::byte* to = block + 2 + part * 8;
    for (size_t k = 0; k < 4; ++k) to[k] = to_byte(entries[part * 4 + k]);
    store_part_signs(signs + part * 4, to + 4);
  }
}

void store_IQ2_XS(const uint16_t* entries, const uint8_t* signs, std::byte* block) noexcept {
  for (size_t k = 0; k < kSignGroups; ++k) {
    const auto bits = static_cast<uint16_t>(entries[k] | (signs[k] & 127) << 9);
    std::memcpy(block + 2 + 2 * k, &bits, sizeof bits);
  }
}

void store_IQ2_S(const uint16_t* entries, const uint8_t* signs, std::byte* block) noexcept {
  for (size_t four = 0; four < kParts; ++four) {
    int high = 0;
    for (size_t i = 0; i < 4; ++i) {
      const size_t k = four * 4 + i;
      block[2 + k] = to_byte(entries[k] & 255);
      block[34 + k] = to_byte(signs[k]);
      high |= entries[k] >> 8 << (2 * i);
    }
    block[66 + four] = to_byte(high);
  }
}

void store_IQ3_XXS(const uint16_t* entries, const uint8_t* signs, std::byte* block) noexcept {
  for (size_t k = 0; k < 64; ++k) block[2 + k] = to_byte(entries[k]);
  for (size_t part = 0; part < kParts; ++part) {
    store_part_signs(signs + part * 4, block + 66 + part * 4);
  }
}

void store_IQ3_S(const uint16_t* entries, const uint8_t* signs, std::byte* block) noexcept {
  for (size_t part = 0; part < kParts; ++part) {
    int high = 0;
    for (size_t k = 0; k < 8; ++k) {
      block[2 + part * 8 + k] = to_byte(entries[part * 8 + k] & 255);
      high |= entries[part * 8 + k] >> 8 << k;
    }
    block[66 + part] = to_byte(high);
  }
  for (size_t group = 0; group < kSignGroups; ++group) block[74 + group] = to_byte(signs[group]);
}

}  // namespace

StoreCodesFn store_codes_function(QuantType type) noexcept {
  switch (type) {
    case QuantType::kQ4_0:
      return store_Q4_0;
    case QuantType::kQ4_1:
      return store_Q4_1;
    case QuantType::kQ5_0:
      return store_Q5_0;
    case QuantType::kQ5_1:
      return store_Q5_1;
    case QuantType::kQ8_0:
      return store_Q8_0;
    case QuantType::kIQ4_NL:
      return store_IQ4_NL;
    case QuantType::kMXFP4:
      return store_MXFP4;
    case QuantType::kIQ4_XS:
      return store_IQ4_XS;
    case QuantType::kQ2_K:
      return store_Q2_K;
    case QuantType::kQ3_K:
      return store_Q3_K;
    case QuantType::kQ4_K:
      return store_Q4_K;
    case QuantType::kQ5_K:
      return store_Q5_K;
    case QuantType::kQ6_K:
      return store_Q6_K;
    default:
      return nullptr;
  }
}

StoreEntriesFn store_entries_function(QuantType type) noexcept {
  switch (type) {
    case QuantType::kIQ2_XXS:
      return store_IQ2_XXS;
    case QuantType::kIQ2_XS:
      return store_IQ2_XS;
    case QuantType::kIQ2_S:
      return store_IQ2_S;
    case QuantType::kIQ3_XXS:
      return store_IQ3_XXS;
    case QuantType::kIQ3_S:
      return store_IQ3_S;
    default:
      return nullptr;
  }
}

size_t entry_columns(QuantType type) noexcept {
  return type == QuantType::kIQ3_XXS || type == QuantType::kIQ3_S ? 4 : 8;
}

}  // namespace edgemoe
