// Types with one float scale per small block: Q4_0 to Q8_0, the 4-bit floats, Q1_0 and Q2_0.
#include "quant/block_bytes.h"
#include "quant/unpack_types.h"
#include "quant/value_tables.h"

namespace edgemoe {
namespace {

// Folds of these types have no sub-scales.
void set_plain_scales(size_t elements, UnpackedFold& out) noexcept {
  for (size_t s = 0; s < elements / kSubBlock; ++s) out.scale[s] = 1;
}

void set_minimum(float offset, UnpackedFold& out) noexcept {
  out.dmin = -offset;
  out.min[0] = 1;
  out.min[1] = 1;
}

// Low nibbles are the first half, high nibbles the second.
void unpack_nibbles(const BlockBytes& block, size_t at, int bias, UnpackedFold& out) noexcept {
  for (size_t i = 0; i < 16; ++i) {
    out.code[i] = static_cast<int8_t>((block.u8(at + i) & 15) - bias);
    out.code[i + 16] = static_cast<int8_t>((block.u8(at + i) >> 4) - bias);
  }
  set_plain_scales(32, out);
}

// As above, with a fifth bit per code in a 32-bit word.
void unpack_five_bits(const BlockBytes& block, size_t high_at, size_t at, int bias,
                      UnpackedFold& out) noexcept {
  const uint32_t high = block.u32(high_at);
  for (uint32_t i = 0; i < 16; ++i) {
    const int low_code = (block.u8(at + i) & 15) | static_cast<int>((high >> i & 1) << 4);
    const int high_code = (block.u8(at + i) >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
    out.code[i] = static_cast<int8_t>(low_code - bias);
    out.code[i + 16] = static_cast<int8_t>(high_code - bias);
  }
  set_plain_scales(32, out);
}

// 2^(exponent - 128): the codes of the 4-bit floats are doubled.
float half_power_of_two(uint8_t exponent) noexcept {
  const uint32_t bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Half of an unsigned 8-bit float: 4 bits of exponent (bias 7), 3 of mantissa; 0x7F is zero.
float half_of_e4m3(uint8_t bits) noexcept {
  if (bits == 0x7F) return 0.0f;
  const uint32_t exponent = bits >> 3 & 15;
  const auto mantissa = static_cast<float>(bits & 7);
  if (exponent == 0) return mantissa * 0x1p-10f;
  const uint32_t power = (exponent + 127 - 7 - 1) << 23;
  float scale;
  std::memcpy(&scale, &power, sizeof scale);
  return (1.0f + mantissa * 0.125f) * scale;
}

}  // namespace

void unpack_Q4_0(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  unpack_nibbles(block, 2, 8, out);
}

void unpack_Q4_1(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  set_minimum(block.half(2), out);
  unpack_nibbles(block, 4, 0, out);
}

void unpack_Q5_0(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  unpack_five_bits(block, 2, 6, 16, out);
}

void unpack_Q5_1(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  set_minimum(block.half(2), out);
  unpack_five_bits(block, 4, 8, 0, out);
}

void unpack_Q8_0(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  for (size_t i = 0; i < 32; ++i) out.code[i] = block.i8(2 + i);
  set_plain_scales(32, out);
}

void unpack_IQ4_NL(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  for (size_t i = 0; i < 16; ++i) {
    out.code[i] = kIq4Values[block.u8(2 + i) & 15];
    out.code[i + 16] = kIq4Values[block.u8(2 + i) >> 4];
  }
  set_plain_scales(32, out);
}

void unpack_MXFP4(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = half_power_of_two(block.u8(0));
  for (size_t i = 0; i < 16; ++i) {
    out.code[i] = kFp4DoubledValues[block.u8(1 + i) & 15];
    out.code[i + 16] = kFp4DoubledValues[block.u8(1 + i) >> 4];
  }
  set_plain_scales(32, out);
}

void unpack_NVFP4(const std::byte* bytes, size_t fold, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = half_of_e4m3(block.u8(fold));
  for (size_t i = 0; i < 8; ++i) {
    const uint8_t pair = block.u8(4 + fold * 8 + i);
    out.code[i] = kFp4DoubledValues[pair & 15];
    out.code[i + 8] = kFp4DoubledValues[pair >> 4];
  }
  set_plain_scales(16, out);
}

// Blocks of 128 and 64 elements meet activations rounded in blocks of 32: a fold is 32 elements.
void unpack_Q1_0(const std::byte* bytes, size_t fold, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  for (size_t i = 0; i < 32; ++i) {
    out.code[i] = (block.u8(2 + fold * 4 + i / 8) >> (i % 8) & 1) != 0 ? 1 : -1;
  }
  set_plain_scales(32, out);
}

void unpack_Q2_0(const std::byte* bytes, size_t fold, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  for (size_t i = 0; i < 32; ++i) {
    const int code = block.u8(2 + fold * 8 + i / 4) >> (i % 4 * 2) & 3;
    out.code[i] = static_cast<int8_t>(code - 1);
  }
  set_plain_scales(32, out);
}

}  // namespace edgemoe
