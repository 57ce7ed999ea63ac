// Codes under a scale and a minimum: weight ~ scale * code - minimum, codes from 0 to kMost.
#pragma once

#include "quant/generic/quantize_tile.inl.h"

namespace edgemoe {
namespace {

// Sums that do not depend on the codes: importance, importance * weight.
struct PlainSums {
  Floats importance;
  Floats weight;
};

// importance * code, importance * code^2, importance * weight * code.
struct CodeSums {
  Floats code;
  Floats square;
  Floats product;
};

struct Affine {
  Floats scale;
  Floats minimum;
};

template <size_t kSubs>
EDGEMOE_LANES PlainSums plain_sums(const Tile<kSubs>& tile, size_t first) noexcept {
  PlainSums sums{};
  for (size_t e = 0; e < Tile<kSubs>::kElements; ++e) {
    const Floats importance = load(tile.importance + e * kSubs + first);
    sums.importance += importance;
    sums.weight += importance * load(tile.weights + e * kSubs + first);
  }
  return sums;
}

// Codes are those nearest to weight * inverse_scale + shift.
template <int kMost, size_t kSubs>
EDGEMOE_LANES CodeSums code_sums(const Tile<kSubs>& tile, size_t first, Floats inverse_scale,
                                 Floats shift) noexcept {
  CodeSums even{};
  CodeSums odd{};
  for (size_t e = 0; e < Tile<kSubs>::kElements; e += 2) {
    const auto add = [&](size_t at, CodeSums& sums) {
      const Floats weight = load(tile.weights + at);
      const Floats code = nearest(clamp(weight * inverse_scale + shift, 0, kMost));
      const Floats weighted = load(tile.importance + at) * code;
      sums.code += weighted;
      sums.square += weighted * code;
      sums.product += weighted * weight;
    };
    add(e * kSubs + first, even);
    add((e + 1) * kSubs + first, odd);
  }
  return {even.code + odd.code, even.square + odd.square, even.product + odd.product};
}

// How much less the weighted squared error is than that of zeros.
EDGEMOE_LANES Floats gain_at(const PlainSums& plain, const CodeSums& sums,
                             const Affine& at) noexcept {
  return at.scale * (2.0f * (sums.product + at.minimum * sums.code) - at.scale * sums.square) -
         at.minimum * (2.0f * plain.weight + at.minimum * plain.importance);
}

// The best scale and minimum for codes with these sums. Where kSigned is false the minimum is not
// negative. The limits hold what rounding errors make of codes that are nearly all equal.
template <bool kSigned>
EDGEMOE_LANES Affine best_affine(const PlainSums& plain, const CodeSums& sums,
                                 const Affine& limit) noexcept {
  const Floats determinant = plain.importance * sums.square - sums.code * sums.code;
  Affine found;
  found.scale = ratio(plain.importance * sums.product - sums.code * plain.weight, determinant);
  found.scale = clamp(found.scale, 0.0f, 1e30f);
  found.scale = minimum(found.scale, limit.scale);
  found.minimum = (found.scale * sums.code - plain.weight) / plain.importance;
  if constexpr (!kSigned) {
    const Integers negative = found.minimum < 0.0f;
    const Floats alone = minimum(ratio(sums.product, sums.square), limit.scale);
    found.scale = negative ? alone : found.scale;
    found.minimum = where(~negative, found.minimum);
  }
  found.minimum = minimum(maximum(found.minimum, -limit.minimum), limit.minimum);
  return found;
}

// The best scale and minimum of each sub-block: tries ranges of codes a little narrower and wider
// than that of the weights, each corrected for its codes, then corrects the best.
template <int kMost, bool kSigned, size_t kSubs, size_t kRanges>
EDGEMOE_LANES Affine best_affines(const Tile<kSubs>& tile, size_t first, const PlainSums& plain,
                                  const float (&ranges)[kRanges]) noexcept {
  Floats low = load(tile.weights + first);
  Floats high = low;
  for (size_t e = 1; e < Tile<kSubs>::kElements; ++e) {
    const Floats weight = load(tile.weights + e * kSubs + first);
    low = minimum(low, weight);
    high = maximum(high, weight);
  }
  const Floats limit = 2.0f * maximum(magnitude(low), magnitude(high));
  if constexpr (!kSigned) {
    low = minimum(low, Floats{});
    high = maximum(high, Floats{});
  }
  const Floats per_range = inverse(high - low);
  Affine best{Floats{}, kSigned ? -low : Floats{}};
  Floats best_gain = gain_at(plain, CodeSums{}, best);
  const auto attempt = [&](Floats inverse_scale, Floats shift) {
    const CodeSums sums = code_sums<kMost>(tile, first, inverse_scale, shift);
    const Affine found = best_affine<kSigned>(plain, sums, {limit, limit});
    const Floats gain = gain_at(plain, sums, found);
    const Integers better = gain > best_gain;
    best.scale = better ? found.scale : best.scale;
    best.minimum = better ? found.minimum : best.minimum;
    best_gain = better ? gain : best_gain;
  };
  for (const float range : ranges) {
    const Floats inverse_scale = per_range * range;
    attempt(inverse_scale, -low * inverse_scale);
  }
  for (int round = 0; round < 2; ++round) {
    const Floats inverse_scale = inverse(best.scale);
    attempt(inverse_scale, best.minimum * inverse_scale);
  }
  return best;
}

template <int kMost, size_t kSubs>
inline void find_codes(const Tile<kSubs>& tile, const float* scales, const float* minima,
                       int8_t* by_sub) noexcept {
  for (size_t first = 0; first < kSubs; first += kLanes) {
    const Floats inverse_scale = inverse(load(scales + first));
    const Floats shift = load(minima + first) * inverse_scale;
    for (size_t e = 0; e < Tile<kSubs>::kElements; ++e) {
      const size_t at = e * kSubs + first;
      const Floats value = load(tile.weights + at) * inverse_scale + shift;
      store_codes(nearest(clamp(value, 0, kMost)), by_sub + at);
    }
  }
}

// Integer scales and minima of sub-blocks under a d and a dmin of the whole unit.
template <size_t kSubs>
struct SharedAffine {
  HalfScale d;
  HalfScale dmin;
  float scale[kSubs] = {};    // integers
  float minimum[kSubs] = {};  // integers
};

// One round of the search for integers up to kMostScale under a given d and dmin.
template <int kMost, int kMostScale, int kReach, size_t kSubs>
struct SharedAffineRound {
  float scale[kSubs];
  float minimum[kSubs];
  float ideal_scale[kSubs];
  float ideal_minimum[kSubs];
  float gain = 0.0f;
  float better_d = 0.0f;
  float better_dmin = 0.0f;

  // What one sub-block of each lane settled on.
  struct Choice {
    Floats gain = splat(-1e30f);
    Floats scale{};
    Floats minimum{};
    CodeSums sums{};
  };

  static void consider(const PlainSums& plain, const CodeSums& sums, Floats whole_scale,
                       Floats whole_minimum, const Affine& at, Choice& best) noexcept {
    const Floats gain = gain_at(plain, sums, at);
    const Integers better = gain > best.gain;
    best.gain = better ? gain : best.gain;
    best.scale = better ? whole_scale : best.scale;
    best.minimum = better ? whole_minimum : best.minimum;
    best.sums.code = better ? sums.code : best.sums.code;
    best.sums.square = better ? sums.square : best.sums.square;
    best.sums.product = better ? sums.product : best.sums.product;
  }

  // For each scale near the wanted one: codes with the wanted minimum, the best minimum for them,
  // codes with that.
  static Choice choose(const Tile<kSubs>& tile, size_t first, const PlainSums& plain,
                       const Affine& wanted, float d, float dmin) noexcept {
    // A unit of equal negative weights has minima alone.
    const float inverse_d = d > 0.0f ? 1.0f / d : 0.0f;
    const Floats middle = nearest(clamp(wanted.scale * inverse_d, 0, kMostScale));
    const float inverse_dmin = dmin > 0.0f ? 1.0f / dmin : 0.0f;
    Choice best;
    for (int step = -kReach; step <= kReach; ++step) {
      const Floats whole = clamp(middle + static_cast<float>(step), 0, kMostScale);
      const Floats at = whole * d;
      const Floats inverse_scale = inverse(at);
      Floats wanted_minimum = wanted.minimum;
      for (int turn = 0; turn < 2; ++turn) {
        const Floats whole_minimum = nearest(clamp(wanted_minimum * inverse_dmin, 0, kMostScale));
        const Affine settled{at, whole_minimum * dmin};
        const CodeSums sums =
            code_sums<kMost>(tile, first, inverse_scale, settled.minimum * inverse_scale);
        consider(plain, sums, whole, whole_minimum, settled, best);
        wanted_minimum = (at * sums.code - plain.weight) / plain.importance;
      }
    }
    return best;
  }

  SharedAffineRound(const Tile<kSubs>& tile, const float* wanted_scale, const float* wanted_minimum,
                    float d, float dmin) noexcept {
    // The equations for d and dmin with all codes and integers fixed.
    float gains[kSubs], aa[kSubs], ab[kSubs], bb[kSubs], ax[kSubs], bx[kSubs];
    for (size_t first = 0; first < kSubs; first += kLanes) {
      const PlainSums plain = plain_sums(tile, first);
      const Choice best = choose(
          tile, first, plain, {load(wanted_scale + first), load(wanted_minimum + first)}, d, dmin);
      const Floats limit = splat(8.0f);
      const Affine ideal = best_affine<false>(plain, best.sums, {limit, limit});
      store(best.scale, scale + first);
      store(best.minimum, minimum + first);
      store(ideal.scale, ideal_scale + first);
      store(ideal.minimum, ideal_minimum + first);
      store(best.gain, gains + first);
      store(best.scale * best.scale * best.sums.square, aa + first);
      store(best.scale * best.minimum * best.sums.code, ab + first);
      store(best.minimum * best.minimum * plain.importance, bb + first);
      store(best.scale * best.sums.product, ax + first);
      store(best.minimum * plain.weight, bx + first);
    }
    double sum_aa = 0, sum_ab = 0, sum_bb = 0, sum_ax = 0, sum_bx = 0;
    for (size_t s = 0; s < kSubs; ++s) {
      gain += gains[s];
      sum_aa += double{aa[s]};
      sum_ab += double{ab[s]};
      sum_bb += double{bb[s]};
      sum_ax += double{ax[s]};
      sum_bx += double{bx[s]};
    }
    const double determinant = sum_aa * sum_bb - sum_ab * sum_ab;
    if (determinant > 1e-9 * sum_aa * sum_bb) {
      better_d = static_cast<float>((sum_bb * sum_ax - sum_ab * sum_bx) / determinant);
      better_dmin = static_cast<float>((sum_ab * sum_ax - sum_aa * sum_bx) / determinant);
    } else if (sum_aa > 0) {
      better_d = static_cast<float>(sum_ax / sum_aa);
      better_dmin = dmin;
    }
  }
};

inline float largest(const float* values, size_t count) noexcept {
  float most = 0.0f;
  for (size_t i = 0; i < count; ++i) most = values[i] > most ? values[i] : most;
  return most;
}

// Integer scales and minima for sub-blocks that want `scales` and `minima`.
template <int kMost, int kMostScale, int kReach, size_t kSubs>
inline SharedAffine<kSubs> share_affine(const Tile<kSubs>& tile, const float* scales,
                                        const float* minima) noexcept {
  SharedAffine<kSubs> best;
  float wanted_scale[kSubs];
  float wanted_minimum[kSubs];
  __builtin_memcpy(wanted_scale, scales, sizeof wanted_scale);
  __builtin_memcpy(wanted_minimum, minima, sizeof wanted_minimum);
  const float most_scale = largest(scales, kSubs);
  const float most_minimum = largest(minima, kSubs);
  HalfScale d = tile.half_that_reaches(most_scale / kMostScale, kMostScale, most_scale);
  HalfScale dmin = tile.half_that_reaches(most_minimum / kMostScale, kMostScale, most_minimum);
  float best_gain = 0.0f;
  for (int round = 0; round < 3 && (d.bits != 0 || dmin.bits != 0); ++round) {
    const SharedAffineRound<kMost, kMostScale, kReach, kSubs> found(
        tile, wanted_scale, wanted_minimum, d.value, dmin.value);
    if (found.gain > best_gain) {
      best_gain = found.gain;
      best.d = d;
      best.dmin = dmin;
      __builtin_memcpy(best.scale, found.scale, sizeof best.scale);
      __builtin_memcpy(best.minimum, found.minimum, sizeof best.minimum);
    }
    if (!(found.better_d > 0.0f)) break;
    const HalfScale better_d = tile.half(found.better_d);
    const HalfScale better_dmin = tile.half(found.better_dmin > 0.0f ? found.better_dmin : 0.0f);
    if (better_d.bits == d.bits && better_dmin.bits == dmin.bits) break;
    d = better_d;
    dmin = better_dmin;
    __builtin_memcpy(wanted_scale, found.ideal_scale, sizeof wanted_scale);
    __builtin_memcpy(wanted_minimum, found.ideal_minimum, sizeof wanted_minimum);
  }
  return best;
}

}  // namespace
}  // namespace edgemoe
