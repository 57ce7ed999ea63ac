"""How much the loss of the whole model answers to errors of each layer's experts, measured.

Errors are squares of output errors. What they do to the next token's distribution depends on the
layers behind: it is measured by quantising the experts of one group of layers alone. The divergence
(rather than the perplexity) is what is compared: it has little noise, is never negative, and that
of independent errors adds up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgemoe.bitwidth.cost_table import Choice, CostTable, Floats

MOST_GROUPS = 8
# A factor that is measured is believed this far from what all layers have on average.
_MOST_FACTOR = 8.0
# The type of a probe: its errors are well above the noise, and of the kind that a plan has.
_PROBE_BITS = 2.6


def layer_groups(table: CostTable) -> list[list[int]]:
    """The MoE layers, neighbours together, in at most MOST_GROUPS groups."""
    layers = [int(layer) for layer in np.flatnonzero(table.is_moe)]
    groups = np.array_split(layers, min(MOST_GROUPS, len(layers)))
    return [[int(layer) for layer in group] for group in groups]


def probe_type(table: CostTable) -> str:
    """The candidate for all matrices whose bits are nearest to what probes want."""
    whole = [name for name in table.types if table.fits_all(name)]
    return min(whole, key=lambda name: abs(table.bits_of(table.uniform(name)) - _PROBE_BITS))


def probes(table: CostTable, largest: Choice) -> list[Choice]:
    """One choice for each group: its experts in the probe's type, all others as `largest`."""
    low = table.uniform(probe_type(table))
    choices = []
    for group in layer_groups(table):
        choice = largest.copy()
        choice[group] = low[group]
        choices.append(choice)
    return choices


def measured_factors(
    table: CostTable, largest: Choice, divergence_of: Callable[[Choice], float]
) -> Floats:
    """[layers] what the errors of each layer are to be multiplied with to be divergences."""
    floor = divergence_of(largest)
    groups = layer_groups(table)
    factors = np.zeros(len(table.is_moe))
    known = []
    for group, choice in zip(groups, probes(table, largest), strict=True):
        error = float(table.errors_of(choice)[group].sum())
        divergence = max(divergence_of(choice) - floor, 0.0)
        factors[group] = divergence / error if error > 0 else 0.0
        known.append((divergence, error))
    total_error = sum(error for _, error in known)
    mean = sum(divergence for divergence, _ in known) / total_error if total_error else 1.0
    if mean <= 0:
        return np.where(table.is_moe, 1.0, 0.0)
    bounded = factors.clip(mean / _MOST_FACTOR, mean * _MOST_FACTOR)
    result: Floats = np.where(table.is_moe, bounded, 0.0)
    return result
