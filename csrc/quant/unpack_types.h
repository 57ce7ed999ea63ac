// One unpack function per quantised type; unpack.cpp makes the table of them.
#pragma once

#include "quant/unpack.h"

namespace edgemoe {

#define EDGEMOE_QUANT_TYPE(name, id, elements, bytes, activations) \
  void unpack_##name(const std::byte* block, size_t fold, UnpackedFold& out) noexcept;
#include "quant/quant_types.def"
#undef EDGEMOE_QUANT_TYPE

}  // namespace edgemoe
