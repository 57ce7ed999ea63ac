// Codes under a scale, without a minimum: weight ~ scale * code.
//
// With the codes fixed the best scale is a quotient of two sums, and what it explains of the
// weighted squares ("gain") is product^2 / square: searches compare gains, never errors.
#pragma once

#include "quant/generic/quantize_tile.inl.h"

namespace edgemoe {
namespace {

// Codes that are all integers from kLow to kHigh.
template <int kLow, int kHigh>
struct WholeCodes {
  EDGEMOE_LANES static Floats round(Floats value) noexcept {
    return nearest(clamp(value, kLow, kHigh));
  }
};

// Sums over the elements of a sub-block: importance * weight * code, importance * code^2.
struct ScaleSums {
  Floats product;
  Floats square;
};

EDGEMOE_LANES Floats gain_at(const ScaleSums& sums, Floats scale) noexcept {
  return scale * (2.0f * sums.product - scale * sums.square);
}

// Codes of the sub-blocks from `first` on are those nearest to weight * inverse_scale.
template <class Codes, size_t kSubs>
EDGEMOE_LANES ScaleSums scale_sums(const Tile<kSubs>& tile, size_t first,
                                   Floats inverse_scale) noexcept {
  ScaleSums even{};
  ScaleSums odd{};
  for (size_t e = 0; e < Tile<kSubs>::kElements; e += 2) {
    const auto add = [&](size_t at, ScaleSums& sums) {
      const Floats weight = load(tile.weights + at);
      const Floats code = Codes::round(weight * inverse_scale);
      const Floats weighted = load(tile.importance + at) * code;
      sums.product += weighted * weight;
      sums.square += weighted * code;
    };
    add(e * kSubs + first, even);
    add((e + 1) * kSubs + first, odd);
  }
  return {even.product + odd.product, even.square + odd.square};
}

// The weight of largest magnitude of each sub-block, with its sign.
template <size_t kSubs>
EDGEMOE_LANES Floats extremes(const Tile<kSubs>& tile, size_t first) noexcept {
  Floats extreme{};
  for (size_t e = 0; e < Tile<kSubs>::kElements; ++e) {
    const Floats weight = load(tile.weights + e * kSubs + first);
    extreme = magnitude(weight) > magnitude(extreme) ? weight : extreme;
  }
  return extreme;
}

// The best scale of each sub-block: tries scales that take the extreme weight to `targets`, each
// corrected for its codes, then corrects the best once more.
template <class Codes, size_t kSubs, size_t kTargets>
EDGEMOE_LANES Floats best_scales(const Tile<kSubs>& tile, size_t first,
                                 const float (&targets)[kTargets]) noexcept {
  const Floats unit = inverse(extremes(tile, first));
  Floats best_gain{};
  Floats best{};
  const auto attempt = [&](Floats inverse_scale) {
    const ScaleSums sums = scale_sums<Codes>(tile, first, inverse_scale);
    const Floats scale = ratio(sums.product, sums.square);
    const Floats gain = scale * sums.product;
    const Integers better = gain > best_gain;
    best = better ? scale : best;
    best_gain = better ? gain : best_gain;
  };
  for (const float target : targets) attempt(unit * target);
  for (int round = 0; round < 2; ++round) attempt(inverse(best));
  return best;
}

template <class Codes, size_t kSubs>
inline void find_codes(const Tile<kSubs>& tile, const float* scales, int8_t* by_sub) noexcept {
  for (size_t first = 0; first < kSubs; first += kLanes) {
    const Floats inverse_scale = inverse(load(scales + first));
    for (size_t e = 0; e < Tile<kSubs>::kElements; ++e) {
      const size_t at = e * kSubs + first;
      store_codes(Codes::round(load(tile.weights + at) * inverse_scale), by_sub + at);
    }
  }
}

// Integer scales of sub-blocks under one scale of the whole unit.
template <size_t kSubs>
struct SharedScale {
  HalfScale d;
  float scale[kSubs] = {};  // integers
};

// One round of the search for integer scales from kLow to kHigh under a given d.
template <class Codes, int kLow, int kHigh, size_t kSubs>
struct SharedScaleRound {
  float scale[kSubs];     // the integers
  float ideal[kSubs];     // the best scale for the codes that were found
  float gain = 0.0f;      // of all
  float better_d = 0.0f;  // for the codes that were found

  SharedScaleRound(const Tile<kSubs>& tile, const float* wanted, float d) noexcept {
    float gains[kSubs];
    float products[kSubs];
    float squares[kSubs];
    const float inverse_d = 1.0f / d;
    for (size_t first = 0; first < kSubs; first += kLanes) {
      const Floats middle = nearest(clamp(load(wanted + first) * inverse_d, kLow, kHigh));
      Floats best_gain = splat(-1.0f);
      Floats best{};
      ScaleSums best_sums{};
      for (int step = -1; step <= 1; ++step) {
        const Floats whole = clamp(middle + static_cast<float>(step), kLow, kHigh);
        const Floats at = whole * d;
        const ScaleSums sums = scale_sums<Codes>(tile, first, inverse(at));
        const Floats found = gain_at(sums, at);
        const Integers better = found > best_gain;
        best_gain = better ? found : best_gain;
        best = better ? whole : best;
        best_sums.product = better ? sums.product : best_sums.product;
        best_sums.square = better ? sums.square : best_sums.square;
      }
      store(best, scale + first);
      store(ratio(best_sums.product, best_sums.square), ideal + first);
      store(best_gain, gains + first);
      store(best * best_sums.product, products + first);
      store(best * best * best_sums.square, squares + first);
    }
    float product = 0.0f;
    float square = 0.0f;
    for (size_t s = 0; s < kSubs; ++s) {
      gain += gains[s];
      product += products[s];
      square += squares[s];
    }
    if (square > 0.0f) better_d = product / square;
  }
};

// Integer scales for sub-blocks that want the scales `wanted`. The one of largest magnitude becomes
// kLow; then scales and d are corrected by turns.
template <class Codes, int kLow, int kHigh, size_t kSubs>
inline SharedScale<kSubs> share_scale(const Tile<kSubs>& tile, const float* wanted) noexcept {
  SharedScale<kSubs> best;
  float peak = 0.0f;
  for (size_t s = 0; s < kSubs; ++s) {
    if (__builtin_fabsf(wanted[s]) > __builtin_fabsf(peak)) peak = wanted[s];
  }
  if (peak == 0.0f) return best;
  float target[kSubs];
  __builtin_memcpy(target, wanted, sizeof target);
  float best_gain = 0.0f;
  HalfScale d = tile.half_that_reaches(peak / kLow, -kLow, __builtin_fabsf(peak));
  for (int round = 0; round < 3 && (d.bits & 0x7FFFu) != 0; ++round) {
    const SharedScaleRound<Codes, kLow, kHigh, kSubs> found(tile, target, d.value);
    if (found.gain > best_gain) {
      best_gain = found.gain;
      best.d = d;
      __builtin_memcpy(best.scale, found.scale, sizeof best.scale);
    }
    const HalfScale better = tile.half(found.better_d);
    if (better.bits == d.bits) break;
    __builtin_memcpy(target, found.ideal, sizeof target);
    d = better;
  }
  return best;
}

}  // namespace
}  // namespace edgemoe
