"""Chooses the types of a model's experts: the target, the method, and the closed loop.

The loss of a plan is predicted from the profile and measured on the held-out windows; what was
measured corrects the prediction until the target is met by measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bitwidth import paper
from edgemoe.bitwidth.allocation import allocate_bytes, allocate_loss
from edgemoe.bitwidth.cost_table import Choice, CostTable, Floats
from edgemoe.bitwidth.loss import Loss, Meter, excess, holds
from edgemoe.bitwidth.plan_file import Plan, PlanModel
from edgemoe.bitwidth.sensitivity import layer_groups, measured_factors
from edgemoe.bitwidth.speed import SpeedModel
from edgemoe.errors import ArgumentError

# Plans that the closed loop measures at most, and how near to the target it wants to come.
MOST_ROUNDS = 6
_NEAR = 0.93
_CURVE_POINTS = 12

Report = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """One of them is given.

    max_loss  growth of the perplexity: 0.02 is 2 %
    size      bytes of all experts
    memory    bytes that the process may take at run time, within `max_loss`
    """

    max_loss: float | None = None
    size: int | None = None
    memory: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Planned:
    """A choice with what is known of it."""

    choice: Choice
    predicted_kl: float | None
    loss: Loss | None
    reasons: tuple[str, ...]


@dataclass
class Planner:
    """Plans for one model.

    table    costs of the profile's candidates, relative to each layer's power
    meter    measures plans; None: what the profile predicts must do
    """

    table: CostTable
    model: PlanModel
    meter: Meter | None
    report: Report = lambda text: None
    measure_importance: bool = False  # of every expert by itself, for the paper's method
    _factors: Floats | None = None
    _floor: float = 0.0
    _measured: dict[bytes, Loss] = field(default_factory=dict)

    # --- measuring

    def plan_of(self, choice: Choice, method: str) -> Plan:
        """A bare plan of a choice."""
        return Plan(self.model, method, self.table.names_of(choice))

    def measure(self, choice: Choice) -> Loss:
        """Measured once for each choice. Requires: there is a meter."""
        if self.meter is None:
            raise ArgumentError("nothing is measured without a model")
        key = choice.tobytes()
        if key not in self._measured:
            self._measured[key] = self.meter.measure(self.plan_of(choice, "allocate"))
        return self._measured[key]

    def largest(self) -> Choice:
        """Every matrix in the type with the least error, the smaller of equals."""
        finite = np.isfinite(self.table.all_sizes)
        errors = np.where(finite, self.table.errors, np.inf)
        least = errors.min(axis=-1, keepdims=True)
        sizes = np.where((errors <= least) & finite, self.table.all_sizes, np.inf)
        choice: Choice = np.argmin(sizes, axis=-1)
        return choice

    def divergences(self) -> CostTable:
        """The table with errors that are divergences in nats, by probes if there is a meter."""
        if self._factors is None:
            if self.meter is None:
                self._factors = np.where(self.table.is_moe, 1.0, 0.0)
            else:
                groups = len(layer_groups(self.table))
                self.report(f"measuring how sensitive layers are ({groups + 1} candidates)")
                largest = self.largest()
                self._floor = self.measure(largest).kl_mean
                self._factors = measured_factors(
                    self.table, largest, lambda choice: self.measure(choice).kl_mean
                )
        return self.table.scaled(self._factors)

    # --- methods

    def allocate(self, target: Target, speed: SpeedModel | None = None) -> Planned:
        """The default: least loss per byte over all experts and types."""
        table = self.divergences()
        if target.size is not None:
            choice = allocate_bytes(table, target.size)
            return self._finish(table, choice, "all experts compete for the bytes")
        if target.max_loss is None:
            raise ArgumentError("a target is --max-loss, --size, --bits or --for-memory")
        weights: Floats | None = None
        for _ in range(1 if speed is None else 3):
            choice = self._within(table, target.max_loss, weights)
            if speed is None:
                break
            weights = speed.byte_weights(table.expert_bytes(choice))
        reasons = [] if speed is None else speed.reasons(table.expert_bytes(choice))
        return self._finish(table, choice, *reasons)

    def _within(self, table: CostTable, most: float, weights: Floats | None) -> Choice:
        """The smallest choice whose measured loss holds; predicted, where nothing is measured."""
        if self.meter is None:
            return allocate_loss(table, math.log1p(most), weights)
        wanted = max(math.log1p(most) - self._floor, math.log1p(most) / 4)
        best: tuple[int, Choice] | None = None
        low, high = 0.0, math.inf  # predicted divergences known to hold, and not to
        for number in range(MOST_ROUNDS):
            choice = allocate_loss(table, wanted, weights)
            loss = self.measure(choice)
            ratio = excess(loss, most)
            self.report(
                f"candidate {number + 1}: {table.bits_of(choice):.3f} bits per weight, expected "
                f"loss {100 * loss.expected:.2f} % ({100 * loss.worst:.2f} % at worst)"
            )
            if holds(loss, most):
                size = table.bytes_of(choice)
                if best is None or size < best[0]:
                    best = (size, choice)
                low = max(low, wanted)
                if ratio >= _NEAR:
                    break
            else:
                high = min(high, wanted)
            wanted = _next(wanted, ratio, low, high)
        if best is None:
            raise ArgumentError(
                f"no plan was found that loses at most {100 * most:.3g} %: the last of "
                f"{MOST_ROUNDS} loses {100 * loss.expected:.2f} %; allow more, or calibrate on "
                "more text"
            )
        return best[1]

    def paper(self, target: Target) -> Planned:
        """The paper's algorithm; see paper.py."""
        order = self._paper_order()
        if target.size is not None:
            choice = paper.of_bytes(self.table, order, target.size)
            return self._finish(self.divergences(), choice, "the paper's K at this size")
        if target.max_loss is None:
            raise ArgumentError("the paper's method takes --max-loss, --size or --bits")
        most = target.max_loss

        def loss_of(choice: Choice) -> float:
            return self.measure(choice).expected

        losses = {name: loss_of(self.table.uniform(name)) for name in paper.widths(self.table)}
        bounds = paper.find_bounds(losses, most)
        choice = paper.most_at_low(
            self.table, bounds, order, lambda one: holds(self.measure(one), most)
        )
        return self._finish(
            self.divergences(), choice, f"the paper's bounds are {bounds.low} and {bounds.high}"
        )

    def _paper_order(self) -> npt.NDArray[np.int64]:
        if self.meter is None or not self.measure_importance:
            return paper.importance_order(self.divergences())
        self.report(f"measuring the importance of {self.table.num_experts} experts")
        return paper.measured_order(self.table, lambda choice: self.measure(choice).expected)

    def uniform(self, name: str) -> Planned:
        return self._finish(self.divergences(), self.table.uniform(name), f"all experts are {name}")

    def _finish(self, table: CostTable, choice: Choice, *reasons: str) -> Planned:
        predicted = self._floor + float(table.errors_of(choice).sum())
        loss = None if self.meter is None else self.measure(choice)
        known = None if self.meter is None else predicted
        return Planned(choice, known, loss, tuple(reasons))

    def curve(self) -> list[tuple[float, float]]:
        """(bits per weight, predicted divergence) of the best choices, smallest first."""
        table = self.divergences()
        smallest = table.bytes_of(table.sizes_least())
        top = max(smallest, min(table.bytes_of(self.largest()), table.num_weights * 9 // 8))
        points = []
        for point in range(_CURVE_POINTS):
            size = math.ceil(smallest * (top / smallest) ** (point / (_CURVE_POINTS - 1)))
            choice = allocate_bytes(table, size)
            divergence = self._floor + float(table.errors_of(choice).sum())
            points.append((table.bits_of(choice), divergence))
        return points

    # --- the result

    def result(self, planned: Planned, method: str, target: Target) -> Plan:
        """The plan with its figures and reasons."""
        table = self.table
        size = table.bytes_of(planned.choice)
        predicted: dict[str, Any] = {
            "expert_bytes": size,
            "bits_per_weight": table.bits_of(planned.choice),
        }
        if planned.predicted_kl is not None:
            predicted["kl_mean"] = planned.predicted_kl
            predicted["curve"] = [[bits, kl] for bits, kl in self.curve()]
        measured = {} if planned.loss is None else planned.loss.to_json()
        return replace(
            self.plan_of(planned.choice, method),
            target=target.to_json(),
            predicted=predicted,
            measured=measured,
            reasons=(*planned.reasons, *self._explain(planned.choice)),
        )

    def _explain(self, choice: Choice) -> list[str]:
        names, counts = np.unique(choice[self.table.is_moe], return_counts=True)
        total = int(counts.sum())
        shares = ", ".join(
            f"{self.table.types[name]} {100 * count / total:.1f} %"
            for name, count in sorted(zip(names, counts, strict=True), key=lambda one: -one[1])
        )
        lines = [f"matrices by type: {shares}"]
        if self._factors is not None and self.meter is not None:
            for group in layer_groups(self.table):
                bits = self._bits_of_layers(choice, group)
                lines.append(
                    f"layers {group[0]} to {group[-1]}: {bits:.2f} bits per weight; an error there "
                    f"counts {self._factors[group[0]]:.3g}"
                )
        return lines

    def _bits_of_layers(self, choice: Choice, layers: list[int]) -> float:
        table = self.table
        size = float(table.expert_bytes(choice)[layers].sum())
        return 8 * size / (int(table.errors.shape[1]) * float(table.weights[layers].sum()))


def _next(wanted: float, ratio: float, low: float, high: float) -> float:
    """The divergence to try after one that was off by `ratio`, between what is known."""
    step = wanted / max(ratio, 0.05) * 0.98
    if math.isfinite(high) and low > 0:
        step = min(max(step, low * (high / low) ** 0.25), low * (high / low) ** 0.75)
    elif math.isfinite(high):
        step = min(step, high * 0.95)
    return min(step, wanted * 3)
