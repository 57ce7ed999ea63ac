// The quantisers for every CPU of the architecture.
#include "quant/generic/quantize_fill.inl.h"

namespace edgemoe {

void fill_quantizers_baseline(QuantizerTable& table) noexcept {
  fill_quantizers(table);
}

}  // namespace edgemoe
