// The products of the AVX2 level with one token.
#pragma once

#include "kernels/x86/products_avx2.inl.h"

#include "kernels/x86/one_token_256.inl.h"  // needs the above
