"""Chooses a type for every expert matrix: the least loss for the bytes, over all experts at once.

Errors of different matrices are nearly independent, so the divergence that they cause together is
the sum of their output errors, each times how much its layer matters. Minimising such a sum under
a bound on the bytes is done by one price: each matrix takes the type with the least
`loss + price * bytes`, and the price is found by bisection (Lagrange relaxation; what it leaves
over is less than one matrix). Only types on the lower convex hull of a matrix can be chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgemoe.bitwidth.cost_table import Choice, CostTable, Floats
from edgemoe.errors import ArgumentError

_STEPS = 80


def choose(table: CostTable, price: float, byte_weights: Floats | None = None) -> Choice:
    """Least `error + price * bytes` for each matrix; the smaller type where they are equal.

    byte_weights   [layers, experts]: what a byte of that expert costs beside others; 1 without
    """
    sizes = table.all_sizes
    finite = np.isfinite(sizes)
    prices = np.where(finite, sizes, 0.0)
    if byte_weights is not None:
        prices = prices * byte_weights[:, :, None, None]
    cost = np.where(finite, table.errors + price * prices, np.inf)
    # Where costs are equal the first of the order is taken.
    order = np.argsort(np.where(np.isfinite(table.sizes), table.sizes, 0.0).sum(axis=(0, 1)))
    chosen: Choice = order[np.argmin(cost[..., order], axis=-1)]
    return chosen


def _prices(table: CostTable) -> tuple[float, float]:
    """Two prices: at the low one every error counts, at the high one only bytes do."""
    scale = max(float(table.errors.max()), np.finfo(np.float64).tiny)
    sizes = table.sizes[np.isfinite(table.sizes) & (table.sizes > 0)]
    return 1e-18 * scale / float(sizes.max()), 1e6 * scale / float(sizes.min())


def smallest_within(
    table: CostTable,
    acceptable: Callable[[Choice], bool],
    byte_weights: Floats | None = None,
) -> Choice:
    """The choice of the highest price that is acceptable. Requires: a lower price never hurts.

    Raises ArgumentError when not even the largest types are acceptable.
    """
    low, high = _prices(table)
    best = choose(table, low, byte_weights)
    if not acceptable(best):
        raise ArgumentError("no choice of types reaches the target")
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        choice = choose(table, middle, byte_weights)
        if acceptable(choice):
            best, low = choice, middle
        else:
            high = middle
    return best


def allocate_loss(table: CostTable, most: float, byte_weights: Floats | None = None) -> Choice:
    """The smallest choice whose errors sum to at most `most`."""
    return smallest_within(
        table, lambda choice: float(table.errors_of(choice).sum()) <= most, byte_weights
    )


def allocate_bytes(table: CostTable, most: int, byte_weights: Floats | None = None) -> Choice:
    """The choice with the least error of at most `most` bytes.

    Raises ArgumentError when even the smallest types need more.
    """
    low, high = _prices(table)
    best = choose(table, high, byte_weights)
    if table.bytes_of(best) > most:
        raise ArgumentError(
            f"the experts take {table.bytes_of(best)} bytes at least; {most} are asked for"
        )
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        choice = choose(table, middle, byte_weights)
        if table.bytes_of(choice) <= most:
            best, high = choice, middle
        else:
            low = middle
    return _fill(table, best, most)


def _fill(table: CostTable, choice: Choice, most: int) -> Choice:
    """Spends what is left over, best gain per byte first."""
    sizes = table.all_sizes
    now = np.take_along_axis(sizes, choice[..., None], axis=3)
    gain = np.take_along_axis(table.errors, choice[..., None], axis=3) - table.errors
    more = np.where(np.isfinite(sizes), sizes, np.inf) - now
    left = most - table.bytes_of(choice)
    useful = (gain > 0) & (more > 0) & (more <= left) & table.is_moe[:, None, None, None]
    worth = np.divide(gain, more, out=np.zeros(gain.shape), where=useful)
    filled = choice.copy()
    taken = np.zeros(choice.shape, dtype=np.bool_)
    candidates = np.flatnonzero(worth.ravel())
    for flat in candidates[np.argsort(-worth.ravel()[candidates], kind="stable")]:
        *place, index = (int(one) for one in np.unravel_index(flat, worth.shape))
        layer, expert, matrix = place
        extra = int(more[layer, expert, matrix, index])
        if not taken[layer, expert, matrix] and extra <= left:
            filled[layer, expert, matrix] = index
            taken[layer, expert, matrix] = True
            left -= extra
    return filled
