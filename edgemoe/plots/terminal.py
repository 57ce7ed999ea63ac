"""A trace as text: a heat map of shades and bars of eighths, or ASCII where those are missing."""

from __future__ import annotations

import textwrap

import numpy as np

from edgemoe.plots.figures import PARTS, format_seconds, heading
from edgemoe.plots.summary import (
    Series,
    heat_levels,
    layer_times,
    time_series,
    token_series,
    use_counts,
)
from edgemoe.sizes import format_size
from edgemoe.traces import Floats, RouteTrace, Timeline

_MAX_ROWS = 48
_MAX_WIDTH = 160
_LABEL = 6  # columns before a heat map row or a bar
_LABELS = {"compute": "alone", "overlap": "both ", "stall": "wait "}
_SHADES = (" \N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}", " .:-=+*#%@")
_BARS = (
    "".join(chr(0x2581 + eighth) for eighth in range(8)),
    "_.-=+*#@",
)


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class _Writer:
    """Lines of at most `width` characters that the encoding has."""

    def __init__(self, width: int, encoding: str) -> None:
        self.width = max(1, min(width, _MAX_WIDTH))
        self._encoding = encoding
        plain = not _encodes(_SHADES[0] + _BARS[0], encoding)
        self.shades = _SHADES[plain]
        self._bars = _BARS[plain]
        self.lines: list[str] = []

    def line(self, text: str = "") -> None:
        shown = text.encode(self._encoding, "replace").decode(self._encoding)
        shown = "".join(c if c.isprintable() else "?" for c in shown)
        indent = shown[: len(shown) - len(shown.lstrip())]
        self.lines += textwrap.wrap(
            shown, self.width, initial_indent="", subsequent_indent=indent[: self.width - 1]
        ) or [""]

    def row(self, label: str, cells: str) -> None:
        self.lines.append(f"{label[: _LABEL - 1]:<{_LABEL}}{cells}"[: self.width].rstrip())

    def bar(self, label: str, values: Floats, largest: float) -> None:
        """One line of bars, none of which is empty: 0 is the lowest."""
        top = len(self._bars) - 1
        scaled = np.clip(values / largest, 0, 1) if largest > 0 else np.zeros_like(values)
        eighths = np.ceil(scaled * top).astype(int).tolist()
        self.row(label, "".join(self._bars[e] for e in eighths))

    @property
    def columns(self) -> int:
        return max(1, self.width - _LABEL)


def _heat_map(out: _Writer, trace: RouteTrace) -> None:
    uses = use_counts(trace, _MAX_ROWS, out.columns)
    cell = "1 column" if uses.experts == 1 else f"{uses.experts} a column"
    out.line(f"uses of experts (across, {cell}) in layers (down)")
    for row, levels in enumerate(heat_levels(uses.counts, len(out.shades)).tolist()):
        shades = "".join(out.shades[level] for level in levels)
        # Stretched where there is room.
        repeat = max(1, min(4, out.columns // len(levels)))
        wide = "".join(shade * repeat for shade in shades)
        out.row(f"{row * uses.layers:>{_LABEL - 1}}", wide)
    out.line(f"darkest: {int(uses.counts.max())} uses")


def _tokens(series: Series) -> str:
    prefill = f", {series.prefill:.0%} of them prefill" if 0 < series.prefill < 1 else ""
    return f"{series.num_tokens} tokens from left to right{prefill}"


def _token_bars(out: _Writer, trace: RouteTrace, timeline: Timeline | None) -> None:
    series = token_series(trace, out.columns)
    values = series.values
    # A trace knows what its tokens missed; what was read ahead is in a timeline alone.
    what = "read on misses, without what was read ahead,"
    if timeline is not None:
        values["bytes"] = time_series(timeline, out.columns).values["bytes"]
        what = "read"
    if not values:
        return
    out.line()
    out.line(_tokens(series))
    if "hit_rate" in series.values:
        rate = series.values["hit_rate"]
        out.bar("hits", rate, 1.0)
        out.line(f"  experts in memory: {float(rate.mean()):.1%} on average, full bar 100 %")
    if "bytes" in series.values:
        read = series.values["bytes"]
        out.bar("read", read, float(read.max()))
        out.line(
            f"  {what} per token: {format_size(float(read.mean()))} on average, "
            f"full bar {format_size(float(read.max()))}"
        )


def _time_bars(out: _Writer, timeline: Timeline) -> None:
    series = time_series(timeline, out.columns)
    layers, phase = layer_times(timeline, out.columns)
    for title, values in (
        (f"time of a token, {_tokens(series)}", series.values),
        (f"time of each layer per token, {phase}", layers),
    ):
        largest = max(float(values[name].max()) for name in PARTS)
        out.line()
        out.line(f"{title}, full bar {format_seconds(largest)}")
        for name in PARTS:
            out.bar(_LABELS[name], values[name], largest)
    out.line()
    total = sum(float(series.values[name].mean()) for name in PARTS)
    for name, text in PARTS.items():
        mean = float(series.values[name].mean())
        share = mean / total if total > 0 else 0.0
        out.line(f"{_LABELS[name]} {share:>4.0%} {format_seconds(mean)} per token: {text}")


def to_terminal(
    trace: RouteTrace, timeline: Timeline | None = None, *, width: int = 80, encoding: str = "utf-8"
) -> str:
    """Lines of at most `width` characters, all of which `encoding` has, with a newline at the end.

    Never wider than 160 columns.
    """
    out = _Writer(width, encoding)
    out.line(heading(trace))
    _heat_map(out, trace)
    _token_bars(out, trace, timeline)
    if timeline is not None:
        _time_bars(out, timeline)
    return "\n".join(out.lines) + "\n"
