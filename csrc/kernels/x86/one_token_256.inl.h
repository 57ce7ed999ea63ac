// One token with 8 rows in two 256-bit registers. The file that includes this one has included its
// level's products_<level>.inl.h.
#pragma once

#include "kernels/x86/row_sums_256.inl.h"

namespace edgemoe::kernels {
namespace {

// Where the products of a span do not fit the parts that the level's multiply makes, those of each
// unit are widened to two 32-bit parts a row at once.
template <class Format>
inline constexpr bool kWidened = kUnitsPerSum<Format> < Format::kSpan / kUnitColumns;

inline __m256i in_both_parts(const int8_t* rows) noexcept {
  return _mm256_shuffle_epi32(_mm256_cvtepi8_epi64(_mm_loadu_si32(rows)), _MM_SHUFFLE(2, 2, 0, 0));
}

template <class Format>
RowSums first_products(const int16_t*, size_t) noexcept {
  return zero_sums();
}

template <class Format>
void add_rows(Vector stored, __m256i x, __m256i& sums) noexcept {
  const Codes<Format> codes(stored_codes<Format>(stored));
  if constexpr (kWidened<Format>) {
    const __m256i products = add_products<Format>(_mm256_setzero_si256(), codes, x);
    sums = _mm256_add_epi32(sums, widened(products));
  } else {
    sums = add_products<Format>(sums, codes, x);
  }
}

template <class Format>
void add_unit(const CodeUnit& unit, const int8_t* values, RowSums& sums) noexcept {
  const __m256i x = broadcast_8_bytes(values);
  add_rows<Format>(unit.part[0], x, sums.low);
  add_rows<Format>(unit.part[1], x, sums.high);
}

template <class Format>
void add_scaled_rows(__m256i products, const int8_t* rows, __m256i& sums) noexcept {
  if constexpr (kWidened<Format>) {
    products = _mm256_mullo_epi32(products, in_both_parts(rows));
  } else {
    products = scaled<Format>(products, stored_scales(rows));
  }
  sums = _mm256_add_epi32(sums, products);
}

template <class Format>
void add_scaled(const RowSums& products, const int8_t* rows, RowSums& sums) noexcept {
  add_scaled_rows<Format>(products.low, rows, sums.low);
  add_scaled_rows<Format>(products.high, rows + 4, sums.high);
}

template <class Format>
RowSums unscaled(const RowSums& products) noexcept {
  if constexpr (kWidened<Format>) return products;
  return {widened(products.low), widened(products.high)};
}

}  // namespace
}  // namespace edgemoe::kernels

#include "kernels/x86/one_token_8_rows.inl.h"  // needs the above
