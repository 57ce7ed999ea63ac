// How the hidden value of a gated network answers to its two inputs: h = a(gate) * up and its
// partial derivatives. a(g) = g * logistic(u(g)) for all kinds but ReLU, so one logistic serves
// value and slope:  a' = s + g * s * (1 - s) * u',  s = logistic(u).
#pragma once

#include <cstddef>

#include "kernels/kernel_table.h"

namespace edgemoe {

struct HiddenSlopes {
  double of_gate;  // dh / dgate
  double of_up;    // dh / dup
};

// What the logistic of kind is taken of; 0 where it has none. `gate` is the product before any
// limit.
float logistic_input(kernels::Activation kind, float gate, float limit) noexcept;

// `logistic` is that of logistic_input(kind, gate, limit).
HiddenSlopes hidden_slopes(kernels::Activation kind, float gate, float up, float logistic,
                           float limit) noexcept;

}  // namespace edgemoe
