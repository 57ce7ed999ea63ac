// The quantisers of one instruction-set level, and who fills in what.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/quant_type.h"

namespace edgemoe {

// What a quantiser gets at a time: eight blocks of 32 or one of 256.
inline constexpr size_t kUnitElements = 256;

// Writes the blocks of one unit. weights, importance: [kUnitElements]; importance is positive.
using QuantizeUnitFn = void (*)(const float* weights, const float* importance,
                                std::byte* out) noexcept;

struct QuantizerTable {
  QuantizeUnitFn quantize[kNumQuantTypes] = {};  // null: the type has no quantiser
};

void fill_quantizers_baseline(QuantizerTable& table) noexcept;
#if defined(__x86_64__)
void fill_quantizers_avx2(QuantizerTable& table) noexcept;
#endif

}  // namespace edgemoe
