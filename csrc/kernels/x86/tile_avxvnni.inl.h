// The products of the AVX-VNNI level with many tokens.
#pragma once

#include "kernels/x86/products_avxvnni.inl.h"

namespace edgemoe::kernels {
namespace {

// Formats with integer scales keep their products apart from the sums, so half as many fit.
template <class Format>
inline constexpr size_t kTileTokens = Format::kScaled ? 2 : 4;

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/tile_256.inl.h"  // needs the above
