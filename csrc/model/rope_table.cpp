#include "model/rope_table.h"

#include <algorithm>
#include <cmath>

#include "base/portable_math.h"

namespace edgemoe {
namespace {

constexpr double kPi = 0x1.921fb54442d18p+1;

// YaRN (Peng et al., arXiv 2309.00071, section 3.2): dimensions that turn more than `beta_fast`
// times within the original context keep their frequency, those below `beta_slow` are interpolated.
constexpr double kBetaFast = 32.0;
constexpr double kBetaSlow = 1.0;

double yarn_boundary(const RopeSpec& rope, double turns) {
  return rope.dimensions * portable_log(rope.original_context / (turns * 2.0 * kPi)) /
         (2.0 * portable_log(rope.base));
}

// Share of the unscaled frequency that pair `pair` keeps.
double yarn_share(const RopeSpec& rope, size_t pair) {
  const double low = std::max(0.0, std::floor(yarn_boundary(rope, kBetaFast)));
  const double high = std::min(rope.dimensions - 1.0, std::ceil(yarn_boundary(rope, kBetaSlow)));
  const double ramp = (static_cast<double>(pair) - low) / std::max(0.001, high - low);
  return 1.0 - std::clamp(ramp, 0.0, 1.0);
}

std::vector<double> frequencies_of(const RopeSpec& rope, const float* factors) {
  std::vector<double> frequencies(rope.dimensions / 2);
  const double log_base = portable_log(rope.base);
  for (size_t pair = 0; pair < frequencies.size(); ++pair) {
    const double exponent = -2.0 * static_cast<double>(pair) / rope.dimensions;
    double frequency = portable_exp(exponent * log_base);
    if (factors != nullptr) frequency /= static_cast<double>(factors[pair]);
    const double scaled = frequency / rope.factor;
    if (rope.scaling == RopeScaling::kYarn) {
      const double share = yarn_share(rope, pair);
      frequency = scaled * (1.0 - share) + frequency * share;
    } else if (rope.scaling == RopeScaling::kLinear) {
      frequency = scaled;
    }
    frequencies[pair] = frequency;
  }
  return frequencies;
}

bool same_rotation(const RopeSpec& a, const RopeSpec& b) {
  return a.pairs == b.pairs && a.scaling == b.scaling && a.dimensions == b.dimensions &&
         a.base == b.base && a.factor == b.factor && a.original_context == b.original_context &&
         a.magnitude == b.magnitude && a.divides_by_factors == b.divides_by_factors;
}

}  // namespace

RopeTable::RopeTable(const ModelSpec& spec, const float* factors, size_t max_rows) {
  for (const LayerSpec& layer : spec.layers) {
    const RopeSpec& rope = layer.attention.rope;
    size_t index = 0;
    while (index < rotations_.size() && !same_rotation(rotations_[index].spec, rope)) ++index;
    if (index == rotations_.size()) {
      Rotation rotation;
      rotation.spec = rope;
      rotation.frequencies = frequencies_of(rope, rope.divides_by_factors ? factors : nullptr);
      rotation.cos.resize(max_rows * rotation.frequencies.size());
      rotation.sin.resize(max_rows * rotation.frequencies.size());
      rotations_.push_back(std::move(rotation));
    }
    rotation_of_layer_.push_back(static_cast<uint32_t>(index));
  }
}

uint64_t RopeTable::bytes(const ModelSpec& spec, size_t max_rows) {
  uint64_t dimensions = 0;  // of the rotations that differ
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    const RopeSpec& rope = spec.layers[layer].attention.rope;
    const auto is_same = [&](const LayerSpec& other) {
      return same_rotation(other.attention.rope, rope);
    };
    const auto end = spec.layers.begin() + static_cast<std::ptrdiff_t>(layer);
    if (std::none_of(spec.layers.begin(), end, is_same)) dimensions += rope.dimensions;
  }
  return dimensions * max_rows * sizeof(float);
}

void RopeTable::set_positions(std::span<const uint32_t> positions, ThreadPool& pool) {
  for (Rotation& rotation : rotations_) {
    const size_t pairs = rotation.frequencies.size();
    pool.parallel_for(positions.size(), [&](size_t row, size_t) {
      for (size_t pair = 0; pair < pairs; ++pair) {
        const SinCos angle = portable_sincos(positions[row] * rotation.frequencies[pair]);
        rotation.cos[row * pairs + pair] = static_cast<float>(angle.cos * rotation.spec.magnitude);
        rotation.sin[row * pairs + pair] = static_cast<float>(angle.sin * rotation.spec.magnitude);
      }
    });
  }
}

const float* RopeTable::cos(uint32_t layer, size_t row) const noexcept {
  const Rotation& rotation = rotations_[rotation_of_layer_[layer]];
  return rotation.cos.data() + row * rotation.frequencies.size();
}

const float* RopeTable::sin(uint32_t layer, size_t row) const noexcept {
  const Rotation& rotation = rotations_[rotation_of_layer_[layer]];
  return rotation.sin.data() + row * rotation.frequencies.size();
}

}  // namespace edgemoe
