// The 16 float lanes in which all sums of float products are kept, and the conversions that fill
// them. One set of functions per instruction set, same names, same bits:
//
//   kFloatTileRows, -Tokens      rows and tokens whose sums fit the registers together
//   zero_lanes, splat            constants
//   load_f32 / f16 / bf16 / i8   16 elements at any alignment, converted exactly
//   store                        16 floats
//   add, multiply, maximum       a > b ? a : b, so a NaN in a is dropped
//   fused_multiply_add(a, b, c)  a * b + c, rounded once
//   sum, largest                 lanes joined as (l, l+8), (l, l+4), (l, l+2), (l, l+1)
//   store_sums(four, to)         the sums of four Lanes, each joined in that order
//   float_from_half              exact
//   half_from_float              round to nearest even, overflow to infinity
//
// The compile flags of the level's file choose the set. Everything here has internal linkage.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__F16C__)
#include "kernels/x86/lanes_avx512.inl.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kernels/x86/lanes_avx2.inl.h"
#elif defined(__aarch64__) && defined(EDGEMOE_NEON)
#include "kernels/arm/lanes_neon.inl.h"
#else
#include "kernels/generic/lanes_plain.inl.h"
#endif
