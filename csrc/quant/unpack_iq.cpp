// The IQ types of 256 elements: codes from grids, signs as bits, scales of 2s + 1 halves.
#include <bit>

#include "quant/block_bytes.h"
#include "quant/codebooks.h"
#include "quant/unpack_types.h"
#include "quant/value_tables.h"

namespace edgemoe {
namespace {

// Seven stored signs; the eighth makes their number even.
uint8_t with_parity_sign(uint32_t signs) noexcept {
  signs &= 127;
  return static_cast<uint8_t>(signs | static_cast<uint32_t>(std::popcount(signs) & 1) << 7);
}

void set_signed(const int8_t* grid, size_t count, uint8_t signs, int8_t* codes) noexcept {
  for (size_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int8_t>((signs >> i & 1) != 0 ? -grid[i] : grid[i]);
  }
}

int16_t odd(int scale) noexcept {
  return static_cast<int16_t>(2 * scale + 1);
}

// Sub-scales as nibbles, low before high, each for `sub_blocks` sub-blocks.
void set_nibble_scales(const BlockBytes& block, size_t at, size_t sub_blocks,
                       UnpackedFold& out) noexcept {
  for (size_t s = 0; s < 16; ++s) {
    const size_t nibble = s / sub_blocks;
    out.scale[s] = odd(block.u8(at + nibble / 2) >> (nibble % 2 * 4) & 15);
  }
}

}  // namespace

void unpack_IQ2_XXS(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0) * 0.125f;
  for (size_t part = 0; part < 8; ++part) {
    const uint32_t signs = block.u32(2 + part * 8 + 4);
    out.scale[2 * part] = odd(static_cast<int>(signs >> 28));
    out.scale[2 * part + 1] = out.scale[2 * part];
    for (size_t k = 0; k < 4; ++k) {
      const size_t entry = block.u8(2 + part * 8 + k);
      set_signed(kGridIq2Xxs + entry * 8, 8, with_parity_sign(signs >> (7 * k)),
                 out.code + part * 32 + k * 8);
    }
  }
}

void unpack_IQ2_XS(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0) * 0.125f;
  set_nibble_scales(block, 66, 1, out);
  for (size_t k = 0; k < 32; ++k) {
    const uint16_t word = block.u16(2 + 2 * k);
    set_signed(kGridIq2Xs + (word & 511u) * 8, 8, with_parity_sign(word >> 9u), out.code + k * 8);
  }
}

void unpack_IQ2_S(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0) * 0.125f;
  set_nibble_scales(block, 74, 1, out);
  for (size_t k = 0; k < 32; ++k) {
    const uint32_t high = block.u8(66 + k / 4) >> (k % 4 * 2) & 3;
    const size_t entry = block.u8(2 + k) | high << 8;
    set_signed(kGridIq2S + entry * 8, 8, block.u8(34 + k), out.code + k * 8);
  }
}

void unpack_IQ3_XXS(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0) * 0.25f;
  for (size_t part = 0; part < 8; ++part) {
    const uint32_t signs = block.u32(66 + part * 4);
    out.scale[2 * part] = odd(static_cast<int>(signs >> 28));
    out.scale[2 * part + 1] = out.scale[2 * part];
    for (size_t k = 0; k < 8; ++k) {
      const size_t entry = block.u8(2 + part * 8 + k);
      const uint8_t byte = with_parity_sign(signs >> (k / 2 * 7));
      set_signed(kGridIq3Xxs + entry * 4, 4, static_cast<uint8_t>(byte >> (k % 2 * 4)),
                 out.code + part * 32 + k * 4);
    }
  }
}

void unpack_IQ3_S(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  set_nibble_scales(block, 106, 2, out);
  for (size_t k = 0; k < 64; ++k) {
    const uint32_t high = block.u8(66 + k / 8) >> (k % 8) & 1;
    const size_t entry = block.u8(2 + k) | high << 8;
    const auto signs = static_cast<uint8_t>(block.u8(74 + k / 2) >> (k % 2 * 4));
    set_signed(kGridIq3S + entry * 4, 4, signs, out.code + k * 4);
  }
}

// Elements are grid + delta with delta = +-1/8: eight times that is an integer.
void unpack_IQ1_S(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0) * 0.125f;
  for (size_t part = 0; part < 8; ++part) {
    const uint32_t high = block.u16(34 + 2 * part);
    out.scale[2 * part] = odd(static_cast<int>(high >> 12 & 7));
    out.scale[2 * part + 1] = out.scale[2 * part];
    const int delta = (high & 0x8000u) != 0 ? -1 : 1;
    for (size_t k = 0; k < 4; ++k) {
      const size_t entry = block.u8(2 + part * 4 + k) | (high >> (3 * k) & 7) << 8;
      for (size_t i = 0; i < 8; ++i) {
        out.code[part * 32 + k * 8 + i] = static_cast<int8_t>(8 * kGridIq1[entry * 8 + i] + delta);
      }
    }
  }
}

// The half scale is spread over the top nibbles of the four scale words.
void unpack_IQ1_M(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  uint32_t half = 0;
  for (size_t word = 0; word < 4; ++word) {
    half |= static_cast<uint32_t>(block.u16(48 + 2 * word) >> 12) << (4 * word);
  }
  out.d = half_to_float(static_cast<uint16_t>(half)) * 0.125f;
  for (size_t s = 0; s < 16; ++s) {
    out.scale[s] = odd(block.u16(48 + s / 4 * 2) >> (s % 4 * 3) & 7);
  }
  for (size_t k = 0; k < 32; ++k) {
    const uint32_t high = block.u8(32 + k / 2) >> (k % 2 * 4) & 15;
    const size_t entry = block.u8(k) | (high & 7) << 8;
    const int delta = (high & 8) != 0 ? -1 : 1;
    for (size_t i = 0; i < 8; ++i) {
      out.code[k * 8 + i] = static_cast<int8_t>(8 * kGridIq1[entry * 8 + i] + delta);
    }
  }
}

void unpack_IQ4_XS(const std::byte* bytes, size_t, UnpackedFold& out) noexcept {
  const BlockBytes block(bytes);
  out.d = block.half(0);
  const uint32_t high = block.u16(2);
  for (size_t part = 0; part < 8; ++part) {
    const uint32_t low = block.u8(4 + part / 2) >> (part % 2 * 4) & 15;
    const int scale = static_cast<int>(low | (high >> (2 * part) & 3) << 4) - 32;
    out.scale[2 * part] = static_cast<int16_t>(scale);
    out.scale[2 * part + 1] = static_cast<int16_t>(scale);
    for (size_t i = 0; i < 16; ++i) {
      const uint8_t pair = block.u8(8 + part * 16 + i);
      out.code[part * 32 + i] = kIq4Values[pair & 15];
      out.code[part * 32 + i + 16] = kIq4Values[pair >> 4];
    }
  }
}

}  // namespace edgemoe
