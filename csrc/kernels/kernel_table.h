// The table of kernels: one pointer per operation, filled from the scalar level upwards, each
// instruction-set level overwriting what it improves.
//
// Contract of every entry: a pure function on the caller's memory; no allocation, threads, globals
// or exceptions; nothing outside the arguments is read or written. Every level gives the same bits:
//   - quantised matmul: per fold an exact integer, isum = sum over sub-blocks of scale * (codes .
//   codes);
//     then, in column order, acc = fma(d * activation_scale, float(isum), acc), and for formats
//     with minima acc = fma(-(dmin * activation_scale), float(sum of min * activation sums), acc)
//     after it; acc starts at +0.
//   - F16, BF16, F32 matmul, dot and sums of squares: lane l of 16 takes columns l, l + 16, ...
//   with
//     one fma each, from +0; the lanes are added as ((l, l+8), then (l, l+4), (l, l+2), (l, l+1)).
//   - other float operations: plain expressions in the order written in generic/*.inl.h,
//     contraction off, explicit fma, own polynomials for exp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/activations.h"
#include "quant/quant_type.h"

namespace edgemoe::kernels {

// out[t * out_stride + row] = weights[row] . x[t'] for row in [row_begin, row_end) and t in
// [0, num_tokens), t' = token_index ? token_index[t] : t.
// Requires: row_begin is a multiple of kRowGroup; row_end too, or it equals rows.
struct MatmulArgs {
  const std::byte* weights;  // whole matrix, in-memory layout
  size_t rows;
  size_t columns;
  Activations x;
  const uint32_t* token_index;  // may be null
  size_t num_tokens;
  float* out;
  size_t out_stride;
  size_t row_begin;
  size_t row_end;
};
using MatmulFn = void (*)(const MatmulArgs&) noexcept;

// Rounds one row of `columns` floats (see activations.h).
using QuantizeFn = void (*)(const float* values, size_t columns, int8_t* codes, float* scales,
                            int16_t* sums) noexcept;

enum class KvType : uint8_t { kF32, kF16, kQ8_0 };

// Attention of several queries over the same keys and values, each query over its own positions
// [begin, end). Per query: blocks of kAttentionBlock absolute positions, each folded into a running
// maximum, sum and output in position order, so the result depends on neither batch, thread nor the
// other queries. Rows are `size` elements of KvType (Q8_0: blocks of 32 as in GGUF). With end ==
// begin and no sink the output is zero. Positions from the least begin to the greatest end are
// read; queries whose ranges nearly agree share the most work.
inline constexpr size_t kAttentionBlock = 64;
inline constexpr size_t kMaxAttendQueries = 32;
struct AttendQuery {
  const float* query;  // [key_size]
  float* out;          // [value_size]
  const float* sink;   // may be null; a logit that takes weight and gives no value
  size_t begin;
  size_t end;
  const float* bias = nullptr;  // bias[p] is added to the score of position p; null: none
};
struct AttendArgs {
  const AttendQuery* queries;
  size_t num_queries;       // at most kMaxAttendQueries
  const std::byte* keys;    // position p at keys + p * key_stride
  const std::byte* values;  // position p at values + p * value_stride
  size_t key_stride;        // bytes
  size_t value_stride;      // bytes
  size_t key_size;          // elements
  size_t value_size;        // elements
  float scale;              // multiplies query . key
  float softcap;            // 0: none; else s = softcap * tanh(s / softcap)
  KvType type;
};
using AttendFn = void (*)(const AttendArgs&) noexcept;

// A causal convolution, each channel on its own, of rows of one sequence that follow each other:
//   out(p) = sum over taps t, the oldest first, of weights[t] * x(p - taps + 1 + t), from the bias
// or +0 on with one fma each, then SiLU where asked. Channels [begin, end).
struct ConvolutionArgs {
  const float* x;  // row r at x + r * x_stride
  float* out;      // may be x
  size_t x_stride;
  size_t out_stride;
  size_t num_rows;
  size_t position;  // of the first row
  size_t taps;      // at least 2
  size_t num_channels;
  size_t begin;
  size_t end;
  const float* weights;  // [taps][num_channels]
  const float* bias;     // [num_channels]; may be null
  float* state;          // [taps - 1][num_channels]: x of position p is in row p % (taps - 1)
  bool silu;
};
using ConvolutionFn = void (*)(const ConvolutionArgs&) noexcept;

// A head's linear recurrence over rows of one sequence that follow each other. For each column of
// its state S [key_size][value_size], with sums over the keys in rising order:
//   change = rate * value, or corrects: rate * (value - decay * (key . S))
//   S = decay * S + key * change
//   out = query . S
// Columns [begin, end). The state lies in tiles of kRecurrenceColumns columns, the last one filled
// up: [tile][key_size][kRecurrenceColumns].
inline constexpr size_t kRecurrenceColumns = 32;
struct RecurrenceArgs {
  float* state;
  size_t key_size;
  size_t value_size;
  size_t begin;  // a multiple of kRecurrenceColumns
  size_t end;    // likewise, or value_size
  size_t num_rows;
  const float* keys;     // row r at keys + r * key_stride
  const float* queries;  // likewise
  const float* values;   // row r at values + r * value_stride
  const float* decay;    // row r at decay + r * gate_stride
  const float* rate;     // likewise
  float* out;            // row r at out + r * out_stride; may be values
  size_t key_stride;
  size_t value_stride;
  size_t gate_stride;
  size_t out_stride;
  bool corrects;
};
using RecurrenceFn = void (*)(const RecurrenceArgs&) noexcept;

// A selective scan over rows of one sequence that follow each other, each channel with a state of
// its own, s [state_size]. For each i in rising order:
//   s[i] = exp(rate * coefficient[i]) * s[i] + key[i] * (rate * x);  out = sum of query[i] * s[i]
// Channels [begin, end).
struct ScanArgs {
  float* state;               // [state_size][num_channels]
  const float* coefficients;  // [state_size][num_channels]
  size_t state_size;
  size_t num_channels;
  size_t begin;
  size_t end;
  size_t num_rows;
  const float* x;        // row r at x + r * x_stride
  const float* rate;     // row r at rate + r * rate_stride
  const float* keys;     // [state_size], row r at keys + r * key_stride
  const float* queries;  // likewise
  float* out;            // row r at out + r * out_stride; not x
  size_t x_stride;
  size_t rate_stride;
  size_t key_stride;
  size_t out_stride;
};
using ScanFn = void (*)(const ScanArgs&) noexcept;

// kStep is 1 above 0, else 0: a network without a gate makes ReLU of it.
enum class Activation : uint8_t { kSilu, kGelu, kRelu, kSwigluOai, kSigmoid, kLinear, kStep };

struct KernelTable {
  const char* level;
  MatmulFn matmul[kNumQuantTypes];           // never null
  MatmulFn multiply_vector[kNumQuantTypes];  // never null; the same for num_tokens == 1
  QuantizeFn quantize_block32;
  QuantizeFn quantize_block256;
  float (*dot)(const float* a, const float* b, size_t n) noexcept;
  // out = x / sqrt(mean(x^2) + eps) * weight (+ bias); weight, bias may be null; out may be x.
  void (*rms_norm)(const float* x, const float* weight, const float* bias, size_t n, float eps,
                   float* out) noexcept;
  // out = (x - mean) / sqrt(var + eps) * weight (+ bias)
  void (*layer_norm)(const float* x, const float* weight, const float* bias, size_t n, float eps,
                     float* out) noexcept;
  // out = activation(gate) * up; kSwigluOai: gate <= limit, |up| <= limit,
  // (up + 1) * gate * sigmoid(1.702 * gate). `limit` is only read there. out may be gate or up.
  void (*gated_activation)(Activation kind, const float* gate, const float* up, size_t n,
                           float limit, float* out) noexcept;
  void (*softmax)(float* x, size_t n) noexcept;              // in place; NaN-free for finite input
  void (*sigmoid)(float* x, size_t n) noexcept;              // in place
  void (*add)(const float* x, size_t n, float* y) noexcept;  // y += x
  void (*add_scaled)(float a, const float* x, size_t n, float* y) noexcept;  // y = fma(a, x, y)
  void (*scale)(float a, size_t n, float* x) noexcept;                       // x *= a
  void (*softcap)(float cap, size_t n, float* x) noexcept;  // x = cap * tanh(x / cap)
  // Rotates pairs (x[i], x[i + pairs]) (`neighbours` false) or (x[2i], x[2i+1]) by the angles given
  // as cos/sin of `pairs` entries.
  void (*rotate)(float* x, size_t pairs, const float* cos, const float* sin,
                 bool neighbours) noexcept;
  // Rounds n floats into a row of the KV cache. Requires: n is a multiple of 32 for kQ8_0.
  void (*store_kv)(KvType type, const float* x, size_t n, std::byte* out) noexcept;
  AttendFn attend;
  ConvolutionFn convolve;
  RecurrenceFn recur;
  ScanFn scan;
  // Repeats the level's multiply instructions on registers `rounds` times; returns the products of
  // codes that this makes. Null at the scalar level, which has none of its own.
  uint64_t (*multiply_peak)(uint64_t rounds) noexcept;
};

inline MatmulFn product_of(const KernelTable& table, QuantType type, size_t num_tokens) noexcept {
  const auto& products = num_tokens == 1 ? table.multiply_vector : table.matmul;
  return products[static_cast<size_t>(type)];
}

}  // namespace edgemoe::kernels
