// For static_cycles.py: one product on the dotprod level between two marks.
// Arguments: TYPE ROWS COLUMNS TOKENS.
#include <cstdlib>
#include <vector>

#include "kernels/dispatch.h"
#include "quant/layout.h"
#include "quant/quant_type.h"

extern "C" {
[[gnu::noinline]] void mark_begin() {
  asm volatile("");
}
[[gnu::noinline]] void mark_end() {
  asm volatile("");
}
}

int main(int, char** words) {
  using namespace edgemoe;
  const QuantType type = *quant_type_from_name(words[1]);
  const size_t rows = std::strtoul(words[2], nullptr, 10);
  const size_t columns = std::strtoul(words[3], nullptr, 10);
  const size_t tokens = std::strtoul(words[4], nullptr, 10);
  const std::vector<std::byte> weights(rows * row_bytes(type, columns));
  const std::vector<float> values(columns * tokens, 0.5f);
  const std::vector<int8_t> codes(columns * tokens, 3);
  const std::vector<float> scales(columns / 32 * tokens, 0.01f);
  const std::vector<int16_t> sums(columns / kSumBlock * tokens, int16_t{48});
  std::vector<float> out(rows * tokens);
  kernels::MatmulArgs args{};
  args.weights = weights.data();
  args.rows = args.row_end = args.out_stride = rows;
  args.columns = columns;
  args.x = {traits(type).activations,
            columns,
            columns,
            values.data(),
            codes.data(),
            scales.data(),
            sums.data()};
  args.num_tokens = tokens;
  args.out = out.data();
  const kernels::KernelTable& table = kernels::table_by_name("dotprod");
  const kernels::MatmulFn product = kernels::product_of(table, type, tokens);
  mark_begin();
  product(args);
  mark_end();
}
