"""Predicts the speed of a plan under a memory budget, from the routing that the profile recorded.

A token takes the longer of two times (design of the limit: 1 / max of them):

    storage   bytes of the experts that it misses / bandwidth of the storage
    memory    bytes of dense weights and of the experts that it uses / bandwidth of the memory

Misses come from a replay of the recorded routing with as many slots as the pool holds experts of
the plan's mean size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.bitwidth.cost_table import Floats
from edgemoe.bitwidth.profile_file import Profile
from edgemoe.errors import MemoryBudgetError

_UNKNOWN_TOKEN = (1 << 32) - 1
_MOST_TOKENS = 4096  # of the routing that is replayed
_GRID = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Machine:
    """Bytes per second, and what the process needs beside its experts."""

    storage: float
    memory: float
    pool: int  # bytes for expert slots
    dense: int  # bytes of dense weights, read for every token


@dataclass
class SpeedModel:
    """Speed of one model on one machine."""

    profile: Profile
    machine: Machine
    _rates: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.machine.pool <= 0:
            raise MemoryBudgetError(
                f"{-self.machine.pool} bytes more than --for-memory are needed to run the model"
            )
        self._rates = _hit_rates(self.profile)
        counts = self.profile.counts.astype(np.float64)
        self._uses: Floats = counts / self.profile.meta["tokens"]  # of each expert by a token

    def hit_rate(self, total: float) -> float:
        """Of experts that take `total` bytes together."""
        share = min(1.0, self.machine.pool / total)
        shares, rates = zip(*self._rates, strict=True)
        return float(np.interp(share, (0.0, *shares), (0.0, *rates)))

    def tokens_per_second(self, expert_bytes: Floats) -> dict[str, float]:
        """expert_bytes: [layers, experts] of a plan."""
        used = float((self._uses * expert_bytes).sum())
        missed = (1 - self.hit_rate(float(expert_bytes.sum()))) * used
        storage = missed / self.machine.storage
        memory = (self.machine.dense + used) / self.machine.memory
        return {
            "tokens_per_second": 1 / max(storage, memory),
            "storage": 1 / storage if storage > 0 else float("inf"),
            "memory": 1 / memory,
            "hit_rate": self.hit_rate(float(expert_bytes.sum())),
        }

    def byte_weights(self, expert_bytes: Floats) -> Floats:
        """[layers, experts] what a byte of each expert costs in time, 1 on average.

        A byte is read when its expert is missed and multiplied whenever it is used; and it takes
        room in the pool, which makes others miss.
        """
        total = float(expert_bytes.sum())
        used = float((self._uses * expert_bytes).sum())
        hit = self.hit_rate(total)
        step = 0.02 * total
        slope = (self.hit_rate(total) - self.hit_rate(total + step)) / step
        room = slope * used / self.machine.storage
        each = self._uses * ((1 - hit) / self.machine.storage + 1 / self.machine.memory)
        weights = each + room
        is_moe = expert_bytes > 0
        mean = float(weights[is_moe].mean()) if is_moe.any() else 1.0
        # An expert that nobody uses still takes storage.
        result: Floats = np.maximum(weights / mean, 0.05) if mean > 0 else np.ones_like(weights)
        return result

    def reasons(self, expert_bytes: Floats) -> list[str]:
        speed = self.tokens_per_second(expert_bytes)
        return [
            f"predicted {speed['tokens_per_second']:.2f} tokens per second: storage allows "
            f"{speed['storage']:.2f}, memory {speed['memory']:.2f}, "
            f"{100 * speed['hit_rate']:.0f} % of the experts that tokens use are in the pool"
        ]


def _routing(profile: Profile) -> tuple[_core.RoutingTrace, int]:
    """The recorded routing, as if its tokens had been generated; and the experts of all layers."""
    routes = profile.routes[:_MOST_TOKENS].astype(np.int64)
    layers = [layer for layer in range(routes.shape[1]) if (routes[:, layer] >= 0).all()]
    chosen = routes[:, layers]
    tokens, count, used = chosen.shape
    rows: npt.NDArray[Any] = np.empty((tokens, count, used, 6), dtype=np.uint32)
    rows[..., 0] = 0
    rows[..., 1] = 1
    rows[..., 2] = np.arange(tokens)[:, None, None]
    rows[..., 3] = np.arange(count)[None, :, None]
    rows[..., 4] = chosen
    rows[..., 5] = _UNKNOWN_TOKEN
    experts = profile.meta["num_experts"]
    return _core.RoutingTrace(count, experts, rows.reshape(-1, 6)), count * experts


def _hit_rates(profile: Profile) -> list[tuple[float, float]]:
    """(share of the experts that the pool holds, share of the demands that hit)."""
    trace, total = _routing(profile)
    rates = []
    for share in _GRID:
        slots = max(1, round(share * total))
        counts = trace.replay("layer-aware", slots)["decode"]
        rates.append((share, counts["hits"] / max(1, counts["demands"])))
    return rates
