// The products of the AVX-VNNI level with one token.
#pragma once

#include "kernels/x86/products_avxvnni.inl.h"

#include "kernels/x86/one_token_256.inl.h"  // needs the above
