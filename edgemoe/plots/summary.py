"""The figures that a picture of a trace shows, reduced to the room that there is for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgemoe.traces import DECODE, Floats, Ints, RouteTrace, Timeline


@dataclass(frozen=True)
class Uses:
    """counts[row, column]: uses of `experts` neighbours in `layers` neighbouring layers."""

    counts: Ints
    layers: int
    experts: int


@dataclass(frozen=True)
class Series:
    """Values of equal stretches of tokens; `prefill` is the share before the first decoded one."""

    num_tokens: int
    prefill: float
    values: dict[str, Floats]


def use_counts(trace: RouteTrace, max_rows: int, max_columns: int) -> Uses:
    """How often each expert was used; neighbours are taken together where there are too many."""
    layers = -(-trace.num_layers // max_rows)
    experts = -(-trace.num_experts // max_columns)
    rows = -(-trace.num_layers // layers)
    columns = -(-trace.num_experts // experts)
    cells = (trace.layer // layers) * columns + trace.expert // experts
    counts = np.bincount(cells, minlength=rows * columns).reshape(rows, columns)
    return Uses(counts.astype(np.int64), layers, experts)


def heat_levels(counts: Ints, num_levels: int) -> Ints:
    """0 for no use, else 1 to num_levels - 1, in proportion to the largest count."""
    most = max(int(counts.max()), 1)
    return -(-counts * (num_levels - 1) // most)


def _stretch(values: Floats, tokens: Floats, max_values: int) -> Floats:
    """Means over equal stretches of tokens; each value holds for its number of `tokens`."""
    edges = np.concatenate([[0.0], np.cumsum(tokens)])
    sums = np.concatenate([[0.0], np.cumsum(values * tokens)])
    count = int(max(1, min(max_values, edges[-1])))
    cuts = np.linspace(0, edges[-1], count + 1)
    return np.asarray(np.diff(np.interp(cuts, edges, sums)) / np.diff(cuts))


def _by_step(turn: Ints, phase: Ints, step: Ints) -> tuple[Ints, Ints]:
    """(step number of each element, in order of turn and position; the phase of each step)."""
    keys, first, index = np.unique((turn << 32) | step, return_index=True, return_inverse=True)
    return index.astype(np.int64), phase[first]


def _prefill_share(phase: Ints, tokens: Floats) -> float:
    """Of the tokens, those that come before the first decoded one."""
    decoding = np.maximum.accumulate(phase == DECODE)
    return float(tokens[~decoding].sum() / tokens.sum())


def token_series(trace: RouteTrace, max_values: int) -> Series:
    """Of every token: "hit_rate" (0 to 1) and "bytes" read, as far as the trace has them."""
    index, phase = _by_step(trace.turn, trace.phase, trace.step)
    tokens = np.ones(len(phase))
    values = {}
    if trace.residency is not None:
        resident = np.bincount(index, weights=trace.residency)
        rate: Floats = resident / np.bincount(index)
        values["hit_rate"] = _stretch(rate, tokens, max_values)
    if trace.expert_bytes is not None:
        read: Floats = np.bincount(index, weights=trace.expert_bytes).astype(np.float64)
        values["bytes"] = _stretch(read, tokens, max_values)
    return Series(len(phase), _prefill_share(phase, tokens), values)


def time_series(timeline: Timeline, max_values: int) -> Series:
    """Of every token: seconds of "compute", "overlap" and "stall", and "bytes" that were read."""
    index, phase = _by_step(timeline.turn, timeline.phase, timeline.step)
    tokens = np.zeros(len(phase))
    tokens[index] = timeline.tokens
    values = {
        name: _stretch(np.bincount(index, weights=seconds) / tokens, tokens, max_values)
        for name, seconds in {**_parts(timeline), "bytes": timeline.bytes_read}.items()
    }
    return Series(int(tokens.sum()), _prefill_share(phase, tokens), values)


def layer_times(timeline: Timeline, max_values: int) -> tuple[dict[str, Floats], str]:
    """Seconds per token of every layer, while decoding if the run did; and "decode" or "prefill".

    Neighbouring layers are taken together where there are too many.
    """
    decode = timeline.phase == DECODE
    chosen = decode if decode.any() else np.ones(len(decode), bool)
    layer = timeline.layer[chosen]
    together = -(-(int(layer.max()) + 1) // max_values)
    index, _ = _by_step(timeline.turn[chosen], timeline.phase[chosen], timeline.step[chosen])
    per_step = np.zeros(int(index.max()) + 1)
    per_step[index] = timeline.tokens[chosen]
    parts = {
        name: np.bincount(layer // together, weights=seconds[chosen]) / per_step.sum()
        for name, seconds in _parts(timeline).items()
    }
    return parts, "decode" if decode.any() else "prefill"


def _parts(timeline: Timeline) -> dict[str, Floats]:
    return {
        "compute": timeline.compute_seconds,
        "overlap": timeline.overlap_seconds,
        "stall": timeline.stall_seconds,
    }
