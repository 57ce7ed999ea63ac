// Fills a table with the products of a level that has a tile: those of the packed types, and of all
// others through the scalar unpack.
#pragma once

#include "kernels/generic/fill.inl.h"
#include "kernels/generic/formats_iq.inl.h"

namespace edgemoe::kernels {
namespace {

template <class... Format>
void set_products(MatmulFn* products) noexcept {
  ((products[static_cast<size_t>(Format::kType)] = PackedProduct<Format>::multiply), ...);
}

inline void set_packed_products(MatmulFn* products) noexcept {
  set_products<Q4_0Format, Q4_1Format, Q5_0Format, Q5_1Format, Q8_0Format>(products);
  set_products<Q2_KFormat, Q3_KFormat, Q4_KFormat, Q5_KFormat, Q6_KFormat>(products);
  set_products<IQ2_XXSFormat, IQ2_XSFormat, IQ2_SFormat>(products);
  set_products<IQ3_XXSFormat, IQ3_SFormat>(products);
  set_products<IQ4_NLFormat, IQ4_XSFormat, MXFP4Format>(products);
}

// A tile of many tokens serves one as well, until a level says otherwise.
inline void fill_tile_products(KernelTable& table) noexcept {
  fill_quantised_products<GenericProduct>(table);
  set_packed_products(table.matmul);
  set_packed_products(table.multiply_vector);
}

inline void fill_products_of_one_token(KernelTable& table) noexcept {
  set_packed_products(table.multiply_vector);
}

}  // namespace
}  // namespace edgemoe::kernels
