// The K types: super-blocks of 256 with 6-bit or 4-bit sub-scales; the ternary types.
#include "quant/block_bytes.h"
#include "quant/unpack_types.h"

namespace edgemoe {
namespace {

// Q4_K and Q5_K: eight 6-bit scales and minima in 12 bytes; each serves 32 elements.
void unpack_six_bit_scales(const BlockBytes& block, size_t at, UnpackedFold& out) noexcept {
  for (size_t i = 0; i < 8; ++i) {
    int scale;
    int min;
    if (i < 4) {
      scale = block.u8(at + i) & 63;
      min = block.u8(at + 4 + i) & 63;
    } else {
      const uint8_t low = block.u8(at + 4 + i);
      scale = (low & 15) | (block.u8(at + i - 4) >> 6 << 4);
      min = (low >> 4) | (block.u8(at + i) >> 6 << 4);
    }
    for (size_t s = 0; s < 2; ++s) {
      out.scale[2 * i + s] = static_cast<int16_t>(scale);
      out.min[2 * i + s] = static_cast<int16_t>(min);
    }
  }
}

}  // namespace

void unpack_Q2_K(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(80);
  out.dmin = block.half(82);
  for (size_t s = 0; s < 16; ++s) {
    out.scale[s] = block.u8(s) & 15;
    out.min[s] = block.u8(s) >> 4;
  }
  for (size_t i = 0; i < 256; ++i) {
    const size_t byte = 16 + i / 128 * 32 + i % 32;
    out.code[i] = static_cast<int8_t>(block.u8(byte) >> (i % 128 / 32 * 2) & 3);
  }
}

void unpack_Q3_K(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(108);
  for (size_t s = 0; s < 16; ++s) {
    const int low = block.u8(96 + s % 8) >> (s / 8 * 4) & 15;
    const int high = block.u8(104 + s % 4) >> (s / 4 * 2) & 3;
    out.scale[s] = static_cast<int16_t>((low | high << 4) - 32);
  }
  for (size_t i = 0; i < 256; ++i) {
    const int low = block.u8(32 + i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3;
    const int high = block.u8(i % 32) >> (i / 32) & 1;
    out.code[i] = static_cast<int8_t>(low - (high != 0 ? 0 : 4));
  }
}

void unpack_Q4_K(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  out.dmin = block.half(2);
  unpack_six_bit_scales(block, 4, out);
  for (size_t i = 0; i < 128; ++i) {
    const size_t first = i / 32 * 64 + i % 32;
    out.code[first] = static_cast<int8_t>(block.u8(16 + i) & 15);
    out.code[first + 32] = static_cast<int8_t>(block.u8(16 + i) >> 4);
  }
}

void unpack_Q5_K(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  out.dmin = block.half(2);
  unpack_six_bit_scales(block, 4, out);
  for (size_t i = 0; i < 256; ++i) {
    const int low = block.u8(48 + i / 64 * 32 + i % 32) >> (i % 64 / 32 * 4) & 15;
    const int high = block.u8(16 + i % 32) >> (i / 32) & 1;
    out.code[i] = static_cast<int8_t>(low | high << 4);
  }
}

void unpack_Q6_K(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(208);
  for (size_t s = 0; s < 16; ++s) out.scale[s] = block.i8(192 + s);
  for (size_t i = 0; i < 256; ++i) {
    const size_t within = i % 128;
    const int low = block.u8(i / 128 * 64 + within % 64) >> (within / 64 * 4) & 15;
    const int high = block.u8(128 + i / 128 * 32 + within % 32) >> (within / 32 * 2) & 3;
    out.code[i] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

// Five ternary digits in a byte, as a fraction of 243 scaled to 256: multiplying by 3^k moves
// digit k to the front.
void unpack_TQ1_0(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const BlockBytes block(bytes);
  out.d = block.half(52);
  for (size_t s = 0; s < 16; ++s) out.scale[s] = 1;
  const auto digit = [&](size_t byte, size_t power) {
    const auto moved = static_cast<uint8_t>(block.u8(byte) * kPowers[power]);
    return static_cast<int8_t>((moved * 3 >> 8) - 1);
  };
  for (size_t i = 0; i < 160; ++i) out.code[i] = digit(i % 32, i / 32);
  for (size_t i = 0; i < 80; ++i) out.code[160 + i] = digit(32 + i % 16, i / 16);
  for (size_t i = 0; i < 16; ++i) out.code[240 + i] = digit(48 + i % 4, i / 4);
}

void unpack_TQ2_0(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(64);
  for (size_t s = 0; s < 16; ++s) out.scale[s] = 1;
  for (size_t i = 0; i < 256; ++i) {
    const int code = block.u8(i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3;
    out.code[i] = static_cast<int8_t>(code - 1);
  }
}

}  // namespace edgemoe
