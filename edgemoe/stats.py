"""What an engine has done since it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerCounts:
    """Experts that one layer asked for, and those that were in memory."""

    demands: int
    hits: int


@dataclass(frozen=True)
class PhaseStats:
    """What storage did during prefill, decode or loading. Bytes and seconds."""

    expert_demands: int
    expert_hits: int
    bytes_read: int
    stall_seconds: float  # waited for storage
    busy_seconds: float  # with reads under way, until their end was noticed


@dataclass(frozen=True)
class LossyRouting:
    """What lossy routing did to the decoded tokens.

    agreement  share of the routing weight that stayed with the router's choice; at least `target`
    choices    experts that routers chose; `substitutions` of them were replaced by others in memory
    """

    target: float
    agreement: float
    choices: int
    substitutions: int
    bytes_saved: int


@dataclass(frozen=True)
class LossyLowCopy:
    """How far low copies served the decoded tokens in place of experts.

    share    of the routing weight that low copies computed
    choices  experts that routers chose; `low_choices` of them were computed with low copies
    bytes_saved  by those that had to be read, as against reading their experts
    """

    threshold: float
    share: float
    choices: int
    low_choices: int
    bytes_saved: int


@dataclass(frozen=True)
class Stats:
    """Counters since loading, and the memory of the process now. Bytes and seconds.

    What was read before any token needed it (`loading`: all experts in mode resident, else those
    that earlier runs used most, partly while tokens are evaluated) is apart: experts, evictions,
    bytes_read and times are sums of `prefill` and `decode`. reads counts all.
    read_ahead_bytes were read before their layer asked; useful_bytes of them were asked for while
    they were there, wasted_bytes were evicted before that. memory["expert_pool_bytes"] is what the
    expert pool may hold now: while others need memory the governor shrinks it (pool_shrinks times
    so far), and lets it grow back (pool_grows). lossy_routing and lossy_low_copy are None where
    results are exact.
    """

    tokens: int
    steps: int
    step_seconds: float
    expert_demands: int
    expert_hits: int
    evictions: int
    bytes_read: int
    reads: int
    read_retries: int
    read_errors: int
    stall_seconds: float
    busy_seconds: float
    read_ahead_bytes: int
    useful_bytes: int
    wasted_bytes: int
    guesses: int
    true_guesses: int
    pool_shrinks: int
    pool_grows: int
    prefill: PhaseStats
    decode: PhaseStats
    loading: PhaseStats
    layers: tuple[LayerCounts, ...]
    lossy_routing: LossyRouting | None
    lossy_low_copy: LossyLowCopy | None
    memory: Mapping[str, int]

    @property
    def hit_rate(self) -> float:
        """Share of the demands that were served from memory; 1 when there were none."""
        return self.expert_hits / self.expert_demands if self.expert_demands else 1.0

    @classmethod
    def from_core(cls, stats: Mapping[str, Any], plan: Mapping[str, int]) -> Stats:
        counters = {
            name: stats[name]
            for name in cls.__dataclass_fields__
            if name not in ("prefill", "decode", "loading", "layers", "memory")
            and "lossy" not in name
        }
        memory = {
            "budget_bytes": plan["budget_bytes"],
            "resident_bytes": stats["resident_bytes"],
            "peak_bytes": stats["peak_resident_bytes"],
            "dense_bytes": plan["dense_bytes"],
            "kv_cache_bytes": plan["kv_cache_bytes"],
            "scratch_bytes": plan["scratch_bytes"],
            "learned_bytes": plan["learned_bytes"],
            "expert_pool_bytes": stats["expert_pool_bytes"],
        }
        lossy = stats["lossy_routing"]
        low = stats["lossy_low_copy"]
        layers = tuple(LayerCounts(*counts) for counts in stats["layers"])
        return cls(
            **counters,
            prefill=PhaseStats(**stats["prefill"]),
            decode=PhaseStats(**stats["decode"]),
            loading=PhaseStats(**stats["loading"]),
            layers=layers,
            lossy_routing=None if lossy is None else LossyRouting(**lossy),
            lossy_low_copy=None if low is None else LossyLowCopy(**low),
            memory=memory,
        )
