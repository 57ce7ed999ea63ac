// Every level against the scalar one, bit for bit: products of every type (the other operations are
// in check_float_kernels_test.cpp).
// Buffers touch guard pages, weights lie at any address, outputs are poisoned.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "kernels/dispatch.h"
#include "quant/layout.h"
#include "quant/unpack.h"
#include "test.h"

namespace edgemoe {
namespace {

using kernels::KernelTable;
using kernels::MatmulArgs;
using test::GuardedBuffer;
using test::Side;
using Random = std::mt19937;

constexpr size_t kMaxRows = 40;
constexpr size_t kMaxTokens = 66;  // one chunk of tokens and the start of the next
constexpr size_t kOutPadding = 3;
constexpr size_t kCodePadding = 5;  // bytes between rows of activations
constexpr uint32_t kPoison = 0x7FABCDEFu;

// How the bytes of weights and activations are chosen.
enum class Fill { kRandom, kExtreme, kNonFinite };

size_t below(Random& random, size_t bound) {
  return random() % bound;
}

Side random_side(Random& random) {
  return test::kSides[below(random, std::size(test::kSides))];
}

float random_float(Random& random, float magnitude) {
  return std::uniform_real_distribution<float>(-magnitude, magnitude)(random);
}

bool is_tame(QuantType type, const std::byte* block) {
  constexpr float kLargest = 0x1p40f;  // no sum may overflow: the bits of a NaN are no contract
  for (size_t fold = 0; fold < traits(type).block_elements / fold_elements(type); ++fold) {
    UnpackedFold unpacked{};
    unpack_function(type)(block, fold, unpacked);
    if (!(std::fabs(unpacked.d) < kLargest)) return false;
    if (has_min(type) && !(std::fabs(unpacked.dmin) < kLargest)) return false;
  }
  return true;
}

void fill_quantised_block(QuantType type, Fill fill, Random& random, std::byte* block) {
  constexpr unsigned char kExtremes[] = {0x00, 0x7F, 0x80, 0xFF, 0x88, 0xF0, 0x0F};
  const size_t bytes = traits(type).block_bytes;
  const unsigned char extreme = kExtremes[below(random, std::size(kExtremes))];
  for (size_t i = 0; i < bytes; ++i) {
    block[i] = static_cast<std::byte>(fill == Fill::kExtreme ? extreme : random());
  }
  while (fill != Fill::kNonFinite && !is_tame(type, block)) {
    block[below(random, bytes)] = static_cast<std::byte>(random());
  }
}

// GGUF rows.
std::vector<std::byte> make_weights(QuantType type, size_t rows, size_t columns, Fill fill,
                                    Random& random) {
  std::vector<std::byte> data(rows * row_bytes(type, columns));
  const size_t bytes = traits(type).block_bytes;
  for (size_t at = 0; at < data.size(); at += bytes) {
    if (traits(type).activations != ActivationEncoding::kF32) {
      fill_quantised_block(type, fill, random, data.data() + at);
      continue;
    }
    for (size_t i = 0; i < bytes; ++i) data[at + i] = static_cast<std::byte>(random());
    const bool exponent_may_be_full = fill == Fill::kNonFinite;
    if (!exponent_may_be_full) data[at + bytes - 1] &= std::byte{0xBB};
  }
  return data;
}

// Rows of activations in the encoding that a type meets.
class TestActivations {
 public:
  TestActivations(ActivationEncoding encoding, size_t columns, Fill fill, Random& random)
      : values_(kMaxTokens * columns * sizeof(float)),
        codes_(kMaxTokens * (columns + kCodePadding)),
        scales_(kMaxTokens * columns * sizeof(float)),
        sums_(kMaxTokens * columns * sizeof(int16_t)) {
    view_.encoding = encoding;
    view_.columns = columns;
    if (encoding == ActivationEncoding::kF32) {
      float* values = values_.array_at<float>(random_side(random), kMaxTokens * columns);
      for (size_t i = 0; i < kMaxTokens * columns; ++i) values[i] = random_float(random, 2.0f);
      view_.values = values;
      return;
    }
    make_codes(columns, fill, random);
    const size_t num_scales = kMaxTokens * columns / activation_block(encoding);
    float* scales = scales_.array_at<float>(random_side(random), num_scales);
    for (size_t i = 0; i < num_scales; ++i) {
      scales[i] = below(random, 8) == 0 ? 0.0f : std::fabs(random_float(random, 0.1f));
    }
    view_.scales = scales;
  }
  const Activations& view() const { return view_; }

 private:
  void make_codes(size_t columns, Fill fill, Random& random) {
    const size_t stride = columns + kCodePadding;
    int8_t* codes =
        codes_.array_at<int8_t>(random_side(random), kMaxTokens * stride - kCodePadding);
    int16_t* sums = sums_.array_at<int16_t>(random_side(random), kMaxTokens * columns / kSumBlock);
    const size_t row_blocks = columns / kSumBlock;
    for (size_t block = 0; block < kMaxTokens * row_blocks; ++block) {
      int8_t* first = codes + block / row_blocks * stride + block % row_blocks * kSumBlock;
      const int extreme = below(random, 2) == 0 ? 127 : -127;
      int sum = 0;
      for (size_t i = 0; i < kSumBlock; ++i) {
        const int code =
            fill == Fill::kExtreme ? extreme : static_cast<int>(below(random, 255)) - 127;
        first[i] = static_cast<int8_t>(code);
        sum += code;
      }
      sums[block] = static_cast<int16_t>(sum);
    }
    view_.codes = codes;
    view_.code_stride = stride;
    view_.sums = sums;
  }

  GuardedBuffer values_;
  GuardedBuffer codes_;
  GuardedBuffer scales_;
  GuardedBuffer sums_;
  Activations view_;
};

// A matrix in the in-memory layout, at an address of any alignment.
class TestMatrix {
 public:
  TestMatrix(QuantType type, size_t columns)
      : type_(type),
        columns_(columns),
        memory_(kMaxRows * row_bytes(type, columns) + kMaxSlack),
        scratch_(regroup_scratch_bytes(type, columns)) {}

  // The first `rows` rows of `gguf`, at one of the guards or some bytes before that at the end.
  const std::byte* place(const std::vector<std::byte>& gguf, size_t rows, Random& random) {
    const size_t bytes = rows * row_bytes(type_, columns_);
    const bool at_guard = below(random, 2) == 0;
    std::byte* data = at_guard ? memory_.at(random_side(random), bytes)
                               : memory_.last(bytes, below(random, kMaxSlack));
    std::memcpy(data, gguf.data(), bytes);
    regroup(type_, data, rows, columns_, scratch_.data());
    return data;
  }

 private:
  static constexpr size_t kMaxSlack = 64;
  QuantType type_;
  size_t columns_;
  GuardedBuffer memory_;
  std::vector<std::byte> scratch_;
};

class Output {
 public:
  Output() : memory_(kMaxTokens * (kMaxRows + kOutPadding) * sizeof(float)) {}
  // Room for `count` floats, none of which has a value that a kernel would write.
  float* poisoned(size_t count) {
    side_ = side_ == Side::kEnd ? Side::kStart : Side::kEnd;
    float* out = memory_.array_at<float>(side_, count);
    for (size_t i = 0; i < count; ++i) std::memcpy(out + i, &kPoison, sizeof(kPoison));
    return out;
  }

 private:
  GuardedBuffer memory_;
  Side side_ = Side::kStart;  // the next one is at the other
};

// Runs the product in pieces that are cut at random group borders.
void multiply_in_pieces(const KernelTable& table, QuantType type, MatmulArgs args, Random& random) {
  for (size_t row = 0; row < args.rows;) {
    const size_t groups = 1 + below(random, 4);
    args.row_begin = row;
    args.row_end = std::min(args.rows, row + groups * kRowGroup);
    product_of(table, type, args.num_tokens)(args);
    row = args.row_end;
  }
}

struct Shape {
  size_t rows;
  size_t columns;
  size_t tokens;
};

std::string describe(const KernelTable& table, QuantType type, const Shape& shape) {
  return std::string(table.level) + " " + std::string(traits(type).name) + " rows " +
         std::to_string(shape.rows) + " columns " + std::to_string(shape.columns) + " tokens " +
         std::to_string(shape.tokens);
}

// One product on every level; `args` says everything but the output.
void check_product(QuantType type, const Shape& shape, MatmulArgs args, Random& random) {
  static Output expected_memory;
  static Output memory;
  args.out_stride = shape.rows + kOutPadding;
  const size_t count = (shape.tokens - 1) * args.out_stride + shape.rows;
  float* expected = expected_memory.poisoned(count);
  args.out = expected;
  args.row_begin = 0;
  args.row_end = shape.rows;
  kernels::table_by_name("scalar").matmul[static_cast<size_t>(type)](args);
  for (const KernelTable* table : kernels::available_tables()) {
    args.out = memory.poisoned(count);
    multiply_in_pieces(*table, type, args, random);
    if (std::memcmp(args.out, expected, count * sizeof(float)) != 0) {
      test::report_failure(__FILE__, __LINE__, "differs: " + describe(*table, type, shape));
    }
  }
}

std::vector<size_t> column_counts(QuantType type) {
  switch (traits(type).activations) {
    case ActivationEncoding::kF32:
      return {1, 15, 16, 100};
    case ActivationEncoding::kQ8Block32: {
      const size_t block = std::max<size_t>(32, traits(type).block_elements);
      return {block, 3 * block};
    }
    case ActivationEncoding::kQ8Block256:
      return {256, 768};
  }
  return {};
}

std::vector<uint32_t> random_token_index(Random& random) {
  std::vector<uint32_t> index(kMaxTokens);
  for (uint32_t& token : index) token = static_cast<uint32_t>(below(random, kMaxTokens));
  return index;
}

void check_type(QuantType type, Fill fill, const std::vector<size_t>& row_counts,
                const std::vector<size_t>& token_counts) {
  Random random(static_cast<uint32_t>(type) + 1000);
  for (const size_t columns : column_counts(type)) {
    const std::vector<std::byte> gguf = make_weights(type, kMaxRows, columns, fill, random);
    const TestActivations x(traits(type).activations, columns, fill, random);
    const std::vector<uint32_t> token_index = random_token_index(random);
    TestMatrix matrix(type, columns);
    for (const size_t rows : row_counts) {
      for (const size_t tokens : token_counts) {
        MatmulArgs args{};
        args.weights = matrix.place(gguf, rows, random);
        args.rows = rows;
        args.columns = columns;
        args.x = x.view();
        args.token_index = below(random, 2) == 0 ? nullptr : token_index.data();
        args.num_tokens = tokens;
        check_product(type, {rows, columns, tokens}, args, random);
      }
    }
  }
}

std::vector<size_t> every_row_count() {
  std::vector<size_t> rows;
  for (size_t n = 1; n <= 20; ++n) rows.push_back(n);
  rows.push_back(kMaxRows);
  return rows;
}

}  // namespace

TEST("products of every type have the scalar bits at every level") {
  for (const QuantTraits& quant : all_quant_types()) {
    check_type(quant.type, Fill::kRandom, every_row_count(), {1, 2, 3, 5, 8, 17});
  }
}

TEST("products of more tokens than a chunk have the scalar bits at every level") {
  for (const QuantTraits& quant : all_quant_types()) {
    check_type(quant.type, Fill::kRandom, {9, 24}, {kMaxTokens});
  }
}

TEST("products of the largest codes do not saturate and have the scalar bits at every level") {
  for (const QuantTraits& quant : all_quant_types()) {
    check_type(quant.type, Fill::kExtreme, {7, 16, kMaxRows}, {1, 4, 15});
  }
}

TEST("products with scales that are not finite stay within their memory at every level") {
  Random random(7);
  Output memory;
  for (const QuantTraits& quant : all_quant_types()) {
    const size_t columns = column_counts(quant.type).back();
    const auto gguf = make_weights(quant.type, kMaxRows, columns, Fill::kNonFinite, random);
    const TestActivations x(quant.activations, columns, Fill::kRandom, random);
    TestMatrix matrix(quant.type, columns);
    MatmulArgs args{};
    args.weights = matrix.place(gguf, 19, random);
    args.rows = 19;
    args.columns = columns;
    args.x = x.view();
    args.num_tokens = 3;
    args.out_stride = args.rows;
    for (const KernelTable* table : kernels::available_tables()) {
      args.out = memory.poisoned(args.num_tokens * args.out_stride);
      multiply_in_pieces(*table, quant.type, args, random);
    }
  }
  CHECK(true);
}

}  // namespace edgemoe
