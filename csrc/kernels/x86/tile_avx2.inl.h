// The products of the AVX2 level with many tokens.
#pragma once

#include "kernels/x86/products_avx2.inl.h"

namespace edgemoe::kernels {
namespace {

template <class Format>
inline constexpr size_t kTileTokens = 2;

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/tile_256.inl.h"  // needs the above
