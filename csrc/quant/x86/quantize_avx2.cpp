// The quantisers in registers of 32 bytes.
#include "quant/generic/quantize_fill.inl.h"

namespace edgemoe {

void fill_quantizers_avx2(QuantizerTable& table) noexcept {
  fill_quantizers(table);
}

}  // namespace edgemoe
