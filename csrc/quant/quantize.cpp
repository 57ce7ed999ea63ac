#include "quant/quantize.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/half.h"
#include "quant/quantize_levels.h"

namespace edgemoe {
namespace {

// The tables of this CPU, filled once.
struct Levels {
  std::array<QuantizerTable, 2> tables{};
  size_t count = 0;

  Levels() noexcept {
    fill_quantizers_baseline(tables[count++]);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) fill_quantizers_avx2(tables[count++]);
#endif
  }
};

const Levels& levels() noexcept {
  static const Levels found;
  return found;
}

}  // namespace

const QuantizerTable& quantizers() noexcept {
  return levels().tables[levels().count - 1];
}

namespace {

bool is_float(QuantType type) noexcept {
  return traits(type).block_elements == 1;
}

// Round to nearest even; the caller's weights are finite and stay so.
uint16_t to_bfloat16(float value) noexcept {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>((rounded & 0x7FFFu) == 0x7F80u ? rounded - 1 : rounded);
}

uint16_t to_finite_half(float value) noexcept {
  constexpr float kLargest = 65504.0f;
  return float_to_half(std::clamp(value, -kLargest, kLargest));
}

void store_floats(QuantType type, const float* weights, size_t count, std::byte* out) noexcept {
  if (type == QuantType::kF32) {
    std::memcpy(out, weights, count * sizeof(float));
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    const uint16_t bits =
        type == QuantType::kF16 ? to_finite_half(weights[i]) : to_bfloat16(weights[i]);
    std::memcpy(out + i * sizeof bits, &bits, sizeof bits);
  }
}

// Sums in eight lanes, so that the compiler may use registers of any size.
double mean(const float* values, size_t count) noexcept {
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t l = 0; l < 8; ++l) lanes[l] += double{values[i + l]};
  }
  double total = 0;
  for (; i < count; ++i) total += double{values[i]};
  for (const double lane : lanes) total += lane;
  return total / static_cast<double>(count);
}

// The importance of one unit, relative to the mean of the row and never 0: columns that nothing
// asks for are still stored as well as the others allow.
class RowImportance {
 public:
  RowImportance(const float* importance, size_t count) noexcept : importance_(importance) {
    std::fill_n(unit_, kUnitElements, 1.0f);
    const double row_mean = importance != nullptr ? mean(importance, count) : 0.0;
    if (row_mean > 0.0) {
      inverse_mean_ = 1.0 / row_mean;
    } else {
      importance_ = nullptr;
    }
  }

  const float* unit(size_t first, size_t count) noexcept {
    constexpr double kLeast = 1e-6;
    if (importance_ == nullptr) return unit_;
    for (size_t i = 0; i < count; ++i) {
      const double relative = double{importance_[first + i]} * inverse_mean_;
      unit_[i] = static_cast<float>(relative + kLeast);
    }
    return unit_;
  }

 private:
  const float* importance_;
  double inverse_mean_ = 1.0;
  alignas(64) float unit_[kUnitElements];
};

}  // namespace

bool can_quantize(QuantType type) noexcept {
  return is_float(type) || levels().tables[0].quantize[static_cast<size_t>(type)] != nullptr;
}

size_t num_quantize_levels() noexcept {
  return levels().count;
}

void quantize_row_at(size_t level, QuantType type, const float* weights, size_t count,
                     const float* importance, std::byte* out) noexcept {
  if (is_float(type)) {
    store_floats(type, weights, count, out);
    return;
  }
  const QuantizeUnitFn quantize = levels().tables[level].quantize[static_cast<size_t>(type)];
  RowImportance row_importance(importance, count);
  size_t first = 0;
  for (; first + kUnitElements <= count; first += kUnitElements) {
    quantize(weights + first, row_importance.unit(first, kUnitElements), out);
    out += row_bytes(type, kUnitElements);
  }
  if (first == count) return;
  // Fewer than eight blocks are left: zeros make up the others, which are dropped.
  float padded[kUnitElements] = {};
  std::byte blocks[kUnitElements * 2];
  std::copy(weights + first, weights + count, padded);
  quantize(padded, row_importance.unit(first, count - first), blocks);
  std::memcpy(out, blocks, row_bytes(type, count - first));
}

void quantize_row(QuantType type, const float* weights, size_t count, const float* importance,
                  std::byte* out) noexcept {
  quantize_row_at(num_quantize_levels() - 1, type, weights, count, importance, out);
}

}  // namespace edgemoe
