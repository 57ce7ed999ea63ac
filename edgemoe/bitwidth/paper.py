"""The bitwidth adaptation of the paper EdgeMoE (Yi et al., arXiv 2308.14352, section 3.2).

Two neighbouring widths whose losses bracket the tolerated loss P are the bounds. Experts are
sorted by how little harm each does at two bits while all others stay at four. Then the K least
important experts take the lower bound and all others the upper one; K grows while the loss is
within P. An expert has one width.

The paper's linear INT2, INT4, INT8 and float are the types of those widths that files have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgemoe.bitwidth.cost_table import Choice, CostTable
from edgemoe.errors import ArgumentError

# Width -> type, rising.
WIDTHS: Mapping[int, str] = {2: "Q2_K", 4: "Q4_K", 8: "Q8_0"}

Order = npt.NDArray[np.int64]  # [experts of all MoE layers]: layer * experts + expert


@dataclass(frozen=True)
class Bounds:
    """The lower and the upper type."""

    low: str
    high: str


def importance_order(table: CostTable) -> Order:
    """Experts by the error that they cause at two bits beyond that at four, least first."""
    two, four = (table.uniform(WIDTHS[width]) for width in (2, 4))
    harm = (table.errors_of(two) - table.errors_of(four)).sum(axis=2)
    places = np.flatnonzero(np.repeat(table.is_moe, table.errors.shape[1]))
    order: Order = places[np.argsort(harm.ravel()[places], kind="stable")]
    return order


def measured_order(table: CostTable, loss_of: Callable[[Choice], float]) -> Order:
    """As the paper does it: one measurement for each expert. Takes `table.num_experts` of them."""
    two = table.types.index(WIDTHS[2])
    places = np.flatnonzero(np.repeat(table.is_moe, table.errors.shape[1]))
    harms = []
    for place in places:
        choice = table.uniform(WIDTHS[4])
        choice[np.unravel_index(place, table.errors.shape[:2])] = two
        harms.append(loss_of(choice))
    order: Order = places[np.argsort(harms, kind="stable")]
    return order


def widths(table: CostTable) -> list[str]:
    """The types that the experts can have, rising. Raises ArgumentError without 2 and 4."""
    names = [name for name in WIDTHS.values() if name in table.types and table.fits_all(name)]
    if WIDTHS[2] not in names or WIDTHS[4] not in names:
        raise ArgumentError(
            f"the paper's method needs {WIDTHS[2]} and {WIDTHS[4]}, which the profile lacks or the "
            "experts cannot have"
        )
    return names


def find_bounds(losses: Mapping[str, float], most: float) -> Bounds:
    """The two neighbouring widths whose losses bracket `most`.

    Below the lowest width's loss that width serves twice; above, ArgumentError.
    """
    names = [name for name in WIDTHS.values() if name in losses]
    if losses[names[0]] <= most:
        return Bounds(names[0], names[0])
    for low, high in zip(names, names[1:], strict=False):
        if losses[high] <= most:
            return Bounds(low, high)
    raise ArgumentError(f"even {names[-1]} loses more than {100 * most:.3g} %")


def with_lowest(table: CostTable, bounds: Bounds, order: Order, count: int) -> Choice:
    """The `count` least important experts at the lower bound, all others at the upper one."""
    choice = table.uniform(bounds.high)
    low = table.types.index(bounds.low)
    layers, experts = np.unravel_index(order[:count], table.errors.shape[:2])
    choice[layers, experts] = low
    return choice


def most_at_low(
    table: CostTable, bounds: Bounds, order: Order, acceptable: Callable[[Choice], bool]
) -> Choice:
    """The largest K that is acceptable, by halving (the paper grows and shrinks K)."""
    low, high = 0, len(order)
    if acceptable(with_lowest(table, bounds, order, high)):
        return with_lowest(table, bounds, order, high)
    while high - low > max(1, len(order) // 64):
        middle = (low + high) // 2
        if acceptable(with_lowest(table, bounds, order, middle)):
            low = middle
        else:
            high = middle
    return with_lowest(table, bounds, order, low)


def of_bytes(table: CostTable, order: Order, most: int) -> Choice:
    """The paper's choice of at most `most` bytes, for comparison at equal sizes."""
    names = widths(table)
    sizes = [table.bytes_of(table.uniform(name)) for name in names]
    if most < sizes[0]:
        raise ArgumentError(
            f"the paper's lowest width takes {sizes[0]} bytes; {most} are asked for"
        )
    if most >= sizes[-1]:
        return table.uniform(names[-1])
    upper = next(i for i, size in enumerate(sizes) if size > most)
    bounds = Bounds(names[upper - 1], names[upper])
    one_expert = (sizes[upper] - sizes[upper - 1]) / table.num_experts
    count = int(np.ceil((sizes[upper] - most) / one_expert - 1e-9))
    return with_lowest(table, bounds, order, count)
