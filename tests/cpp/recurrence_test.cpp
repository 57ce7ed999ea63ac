// Layers with a state: every level against plain loops in double, against the scalar level bit for
// bit, and however a sequence is cut into calls. Operands, states and results touch guard pages.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/units.h"
#include "guarded_buffer.h"
#include "kernels/dispatch.h"
#include "test.h"

namespace edgemoe {
namespace {

using kernels::KernelTable;
using test::GuardedFloats;
using test::Side;

constexpr size_t kRows = 11;

std::vector<float> random_floats(size_t count, uint32_t seed, float low = -1.0f,
                                 float high = 1.0f) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

// Rows of `length` in calls of `step` rows.
template <class Run>
void in_steps(size_t step, Run run) {
  for (size_t row = 0; row < kRows; row += step) run(row, std::min(step, kRows - row));
}

std::vector<float> convolved(const KernelTable& table, size_t channels, size_t taps, size_t step,
                             Side side) {
  const GuardedFloats x(random_floats(kRows * channels, 1), side);
  const GuardedFloats weights(random_floats(taps * channels, 2), side);
  const GuardedFloats bias(random_floats(channels, 3), side);
  const GuardedFloats state(std::vector<float>((taps - 1) * channels, 0.0f), side);
  const GuardedFloats out(std::vector<float>(kRows * channels, NAN), side);
  in_steps(step, [&](size_t row, size_t count) {
    kernels::ConvolutionArgs args{};
    args.x = x.data() + row * channels;
    args.out = out.data() + row * channels;
    args.x_stride = args.out_stride = args.num_channels = args.end = channels;
    args.num_rows = count;
    args.position = row;
    args.taps = taps;
    args.weights = weights.data();
    args.bias = bias.data();
    args.state = state.data();
    args.silu = true;
    table.convolve(args);
  });
  return out.values();
}

std::vector<double> expected_convolution(size_t channels, size_t taps) {
  const auto x = random_floats(kRows * channels, 1);
  const auto weights = random_floats(taps * channels, 2);
  const auto bias = random_floats(channels, 3);
  std::vector<double> out;
  for (size_t i = 0; i < kRows * channels; ++i) {
    const size_t row = i / channels;
    const size_t channel = i % channels;
    double sum = static_cast<double>(bias[channel]);
    for (size_t tap = 0; tap < taps; ++tap) {
      if (row + tap + 1 < taps) continue;
      sum += static_cast<double>(weights[tap * channels + channel]) *
             static_cast<double>(x[(row + tap + 1 - taps) * channels + channel]);
    }
    out.push_back(sum / (1.0 + std::exp(-sum)));
  }
  return out;
}

struct RecurrenceCase {
  size_t key_size;
  size_t value_size;
  bool corrects;
};

std::vector<float> recurred(const KernelTable& table, const RecurrenceCase& c, size_t step,
                            Side side) {
  const GuardedFloats keys(random_floats(kRows * c.key_size, 1, -0.4f, 0.4f), side);
  const GuardedFloats queries(random_floats(kRows * c.key_size, 2), side);
  const GuardedFloats values(random_floats(kRows * c.value_size, 3), side);
  const GuardedFloats decay(random_floats(kRows, 4, 0.5f, 1.0f), side);
  const GuardedFloats rate(random_floats(kRows, 5, 0.0f, 1.0f), side);
  const GuardedFloats state(
      std::vector<float>(c.key_size * align_up(uint64_t{c.value_size}, kernels::kRecurrenceColumns),
                         0.0f),
      side);
  const GuardedFloats out(std::vector<float>(kRows * c.value_size, NAN), side);
  in_steps(step, [&](size_t row, size_t count) {
    kernels::RecurrenceArgs args{};
    args.state = state.data();
    args.key_size = args.key_stride = c.key_size;
    args.value_size = args.value_stride = args.out_stride = args.end = c.value_size;
    args.num_rows = count;
    args.keys = keys.data() + row * c.key_size;
    args.queries = queries.data() + row * c.key_size;
    args.values = values.data() + row * c.value_size;
    args.decay = decay.data() + row;
    args.rate = rate.data() + row;
    args.gate_stride = 1;
    args.out = out.data() + row * c.value_size;
    args.corrects = c.corrects;
    table.recur(args);
  });
  return out.values();
}

std::vector<double> expected_recurrence(const RecurrenceCase& c) {
  const auto keys = random_floats(kRows * c.key_size, 1, -0.4f, 0.4f);
  const auto queries = random_floats(kRows * c.key_size, 2);
  const auto values = random_floats(kRows * c.value_size, 3);
  const auto decay = random_floats(kRows, 4, 0.5f, 1.0f);
  const auto rate = random_floats(kRows, 5, 0.0f, 1.0f);
  std::vector<double> state(c.key_size * c.value_size, 0.0);
  std::vector<double> out;
  for (size_t row = 0; row < kRows; ++row) {
    const auto key = [&](size_t i) { return static_cast<double>(keys[row * c.key_size + i]); };
    for (double& s : state) s *= static_cast<double>(decay[row]);
    for (size_t j = 0; j < c.value_size; ++j) {
      double known = 0;
      for (size_t i = 0; i < c.key_size; ++i) known += key(i) * state[i * c.value_size + j];
      const double value = static_cast<double>(values[row * c.value_size + j]);
      const double change = static_cast<double>(rate[row]) * (value - (c.corrects ? known : 0.0));
      double sum = 0;
      for (size_t i = 0; i < c.key_size; ++i) {
        state[i * c.value_size + j] += key(i) * change;
        sum += static_cast<double>(queries[row * c.key_size + i]) * state[i * c.value_size + j];
      }
      out.push_back(sum);
    }
  }
  return out;
}

constexpr size_t kScanState = 5;

std::vector<float> scanned(const KernelTable& table, size_t channels, size_t step, Side side) {
  const GuardedFloats x(random_floats(kRows * channels, 1), side);
  const GuardedFloats rate(random_floats(kRows * channels, 2, 0.0f, 1.0f), side);
  const GuardedFloats coefficients(random_floats(kScanState * channels, 3, -2.0f, -0.1f), side);
  const GuardedFloats keys(random_floats(kRows * kScanState, 4), side);
  const GuardedFloats queries(random_floats(kRows * kScanState, 5), side);
  const GuardedFloats state(std::vector<float>(kScanState * channels, 0.0f), side);
  const GuardedFloats out(std::vector<float>(kRows * channels, NAN), side);
  in_steps(step, [&](size_t row, size_t count) {
    kernels::ScanArgs args{};
    args.state = state.data();
    args.coefficients = coefficients.data();
    args.state_size = args.key_stride = kScanState;
    args.num_channels = args.end = args.x_stride = args.rate_stride = args.out_stride = channels;
    args.num_rows = count;
    args.x = x.data() + row * channels;
    args.rate = rate.data() + row * channels;
    args.keys = keys.data() + row * kScanState;
    args.queries = queries.data() + row * kScanState;
    args.out = out.data() + row * channels;
    table.scan(args);
  });
  return out.values();
}

std::vector<double> expected_scan(size_t channels) {
  const auto x = random_floats(kRows * channels, 1);
  const auto rate = random_floats(kRows * channels, 2, 0.0f, 1.0f);
  const auto coefficients = random_floats(kScanState * channels, 3, -2.0f, -0.1f);
  const auto keys = random_floats(kRows * kScanState, 4);
  const auto queries = random_floats(kRows * kScanState, 5);
  std::vector<double> state(kScanState * channels, 0.0);
  std::vector<double> out(kRows * channels, 0.0);
  for (size_t i = 0; i < kRows * channels * kScanState; ++i) {
    const size_t row = i / (channels * kScanState);
    const size_t place = i % (channels * kScanState);
    const size_t entry = place / channels;
    const size_t channel = row * channels + place % channels;
    const double r = static_cast<double>(rate[channel]);
    const double key = static_cast<double>(keys[row * kScanState + entry]);
    state[place] = std::exp(r * static_cast<double>(coefficients[place])) * state[place] +
                   key * r * static_cast<double>(x[channel]);
    out[channel] += static_cast<double>(queries[row * kScanState + entry]) * state[place];
  }
  return out;
}

}  // namespace

TEST("a scan is that of plain loops, at every level and however rows are cut") {
  for (const size_t channels : {size_t{1}, size_t{16}, size_t{50}}) {
    const auto scalar = scanned(kernels::table_by_name("scalar"), channels, kRows, Side::kEnd);
    CHECK(largest_difference(scalar, expected_scan(channels)) < 1e-4);
    for (const KernelTable* table : kernels::available_tables()) {
      for (const size_t step : {size_t{1}, size_t{4}, kRows}) {
        for (const Side side : test::kSides) {
          CHECK(same_bits(scanned(*table, channels, step, side), scalar));
        }
      }
    }
  }
}

TEST("a convolution is the sum over its taps, at every level and however rows are cut") {
  for (const size_t taps : {size_t{2}, size_t{3}, size_t{4}}) {
    for (const size_t channels : {size_t{1}, size_t{16}, size_t{40}, size_t{333}}) {
      const auto scalar =
          convolved(kernels::table_by_name("scalar"), channels, taps, kRows, Side::kEnd);
      CHECK(largest_difference(scalar, expected_convolution(channels, taps)) < 1e-5);
      for (const KernelTable* table : kernels::available_tables()) {
        for (const size_t step : {size_t{1}, size_t{3}, kRows}) {
          for (const Side side : test::kSides) {
            CHECK(same_bits(convolved(*table, channels, taps, step, side), scalar));
          }
        }
      }
    }
  }
}

TEST("a recurrence is that of plain loops, at every level and however rows are cut") {
  const RecurrenceCase cases[] = {
      {16, 16, true}, {128, 128, true}, {7, 33, true}, {64, 80, false}, {1, 1, false}};
  for (const RecurrenceCase& c : cases) {
    const auto scalar = recurred(kernels::table_by_name("scalar"), c, kRows, Side::kEnd);
    CHECK(largest_difference(scalar, expected_recurrence(c)) < 1e-3);
    for (const KernelTable* table : kernels::available_tables()) {
      for (const size_t step : {size_t{1}, size_t{4}, kRows}) {
        for (const Side side : test::kSides) {
          CHECK(same_bits(recurred(*table, c, step, side), scalar));
        }
      }
    }
  }
}

}  // namespace edgemoe
