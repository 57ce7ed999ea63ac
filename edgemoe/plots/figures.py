"""The picture of a trace: a heat map of expert uses, and what happened token by token below it."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgemoe.plots.drawing import HEAT_LEVELS, Drawing, Polyline, Rect, Text
from edgemoe.plots.summary import (
    Series,
    Uses,
    heat_levels,
    layer_times,
    time_series,
    token_series,
    use_counts,
)
from edgemoe.sizes import format_size
from edgemoe.traces import Floats, RouteTrace, Timeline

_WIDTH = 960
_LEFT, _RIGHT = 80, 24
_PLOT = _WIDTH - _LEFT - _RIGHT
_CHART_HEIGHT = 110
_MAX_ROWS, _MAX_COLUMNS = 96, 256
_MAX_VALUES = 400
_MAX_NAME = 60
PARTS = {"compute": "computing", "overlap": "computing and reading", "stall": "waiting"}


def format_seconds(seconds: float) -> str:
    """ "1.5 ms": three significant digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds > 0 else "0 s"


def heading(trace: RouteTrace) -> str:
    """What was traced, in one line."""
    name = trace.model.replace("\\", "/").rsplit("/", 1)[-1]
    shown = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 3] + "..."
    return (
        f"{shown or trace.arch or 'route trace'}: {trace.num_layers} layers, "
        f"{trace.num_experts} experts, {trace.num_used} used"
    )


def _round_up(value: float, base: float = 10.0) -> float:
    """The next value of 1, 2, 2.5, 5 times a power of `base` (of 2 for bytes)."""
    if value <= 0:
        return 1.0
    if base == 2.0:
        return 2.0 ** math.ceil(math.log2(value))
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value * 0.999999)


def _tick_step(count: int, most: int) -> int:
    """Numbers between ticks (1, 2, 5, 10, ...), so that there are at most `most` of them."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if count <= step * most:
                return step
        power *= 10


class _Page:
    """Places charts one below another."""

    def __init__(self) -> None:
        self.items: list[Rect | Polyline | Text] = []
        self.y = 0.0

    def title(self, text: str) -> None:
        self.y += 34
        self.items.append(Text(_LEFT, self.y, text, size=13))
        self.y += 10

    def heat_map(self, uses: Uses, trace: RouteTrace) -> None:
        self.title("How often each expert was used, by layer")
        rows, columns = uses.counts.shape
        cell_height = max(4.0, min(14.0, 400.0 / rows))
        cell_width = _PLOT / columns
        top = self.y
        self.items.append(Rect(_LEFT, top, _PLOT, rows * cell_height, "heat0"))
        for row, levels in enumerate(heat_levels(uses.counts, HEAT_LEVELS).tolist()):
            start = 0
            for column in range(1, columns + 1):
                if column < columns and levels[column] == levels[start]:
                    continue
                if levels[start] > 0:
                    x, width = _LEFT + start * cell_width, (column - start) * cell_width
                    color = f"heat{levels[start]}"
                    y = top + row * cell_height
                    self.items.append(Rect(x, y, width, cell_height, color))
                start = column
        self.y += rows * cell_height
        step = _tick_step(trace.num_layers, int(max(2, rows * cell_height / 24)))
        for layer in range(0, trace.num_layers, step):
            y = top + (layer / uses.layers + 0.5) * cell_height + 4
            self.items.append(Text(_LEFT - 8, y, str(layer), "muted", "end", 11))
        step = _tick_step(trace.num_experts, 16)
        for expert in range(0, trace.num_experts, step):
            x = _LEFT + (expert / uses.experts + 0.5) * cell_width
            self.items.append(Text(x, self.y + 15, str(expert), "muted", "middle", 11))
        self.items.append(Text(_LEFT - 8, top - 6, "layer", "muted", "end", 11))
        self.y += 20
        self._heat_legend(int(uses.counts.max()), uses)

    def _heat_legend(self, most: int, uses: Uses) -> None:
        y = self.y + 14
        self.items.append(Text(_LEFT, y, "expert; uses: 0", "muted", size=11))
        x = _LEFT + 100.0
        for level in range(HEAT_LEVELS):
            self.items.append(Rect(x + 14 * level, y - 10, 14, 12, f"heat{level}"))
        together = ""
        if uses.experts > 1 or uses.layers > 1:
            together = f" (a cell is {uses.experts} experts x {uses.layers} layers)"
        end = Text(x + 14 * HEAT_LEVELS + 8, y, f"{most}{together}", "muted", size=11)
        self.items.append(end)
        self.y = y

    def frame(self, largest: float, label: Callable[[float], str], prefill: float) -> float:
        """Grid and labels of a chart; returns its base line."""
        top, bottom = self.y, self.y + _CHART_HEIGHT
        if prefill > 0:
            self.items.append(Rect(_LEFT, top, prefill * _PLOT, _CHART_HEIGHT, "shade"))
        for part in (0.0, 0.5, 1.0):
            y = bottom - part * _CHART_HEIGHT
            self.items.append(Polyline(((_LEFT, y), (_LEFT + _PLOT, y)), "grid"))
            self.items.append(Text(_LEFT - 8, y + 4, label(largest * part), "muted", "end", 11))
        self.y = bottom
        return bottom

    def token_axis(self, series: Series) -> None:
        step = _tick_step(series.num_tokens, 12)
        for token in range(0, series.num_tokens, step):
            x = _LEFT + _PLOT * (token + 0.5) / series.num_tokens
            self.items.append(Text(x, self.y + 15, str(token), "muted", "middle", 11))
        if 0 < series.prefill < 1:
            y = self.y - _CHART_HEIGHT + 14
            self.items.append(Text(_LEFT + 6, y, "prefill", "muted", size=11))
        self.y += 18

    def line(
        self,
        values: Floats,
        series: Series,
        largest: float,
        label: Callable[[float], str],
    ) -> None:
        bottom = self.frame(largest, label, series.prefill)
        width = _PLOT / len(values)
        points = []
        for index, value in enumerate(values.tolist()):
            y = bottom - _CHART_HEIGHT * min(1.0, value / largest)
            points += [(_LEFT + index * width, y), (_LEFT + (index + 1) * width, y)]
        self.items.append(Polyline(points, "series", 1.5))
        self.token_axis(series)

    def stack(self, parts: dict[str, Floats], prefill: float) -> None:
        """Bars of what adds up."""
        largest = _round_up(float(sum(parts.values()).max()))  # type: ignore[union-attr]
        bottom = self.frame(largest, format_seconds, prefill)
        columns = list(zip(*(parts[name].tolist() for name in PARTS), strict=True))
        width = _PLOT / len(columns)
        for index, column in enumerate(columns):
            y = bottom
            for name, value in zip(PARTS, column, strict=True):
                height = _CHART_HEIGHT * value / largest
                y -= height
                if height > 0:
                    self.items.append(Rect(_LEFT + index * width, y, width, height, name))

    def parts_legend(self) -> None:
        x = float(_LEFT)
        self.y += 18
        for name, text in PARTS.items():
            self.items.append(Rect(x, self.y - 10, 12, 12, name))
            self.items.append(Text(x + 18, self.y, text, "muted", size=11))
            x += 40 + 7 * len(text)


def _add_times(page: _Page, timeline: Timeline) -> None:
    series = time_series(timeline, _MAX_VALUES)
    page.title("Where the time of a token goes")
    page.stack(series.values, series.prefill)
    page.token_axis(series)
    parts, phase = layer_times(timeline, _MAX_ROWS)
    page.title(f"Time of each layer per token, {phase}")
    page.stack(parts, 0)
    num_layers = int(timeline.layer.max()) + 1
    for layer in range(0, num_layers, _tick_step(num_layers, 16)):
        x = _LEFT + _PLOT * (layer + 0.5) / num_layers
        page.items.append(Text(x, page.y + 15, str(layer), "muted", "middle", 11))
    page.y += 18
    page.parts_legend()


def trace_drawing(trace: RouteTrace, timeline: Timeline | None = None) -> Drawing:
    """Heat map; hit rate and bytes per token if the trace has them; times with a timeline."""
    page = _Page()
    page.y = 30
    page.items.append(Text(_LEFT, page.y, heading(trace), size=15))
    page.heat_map(use_counts(trace, _MAX_ROWS, _MAX_COLUMNS), trace)
    series = token_series(trace, _MAX_VALUES)
    shown = ["a heat map of expert uses by layer"]
    if "hit_rate" in series.values:
        page.title("Experts that were in memory, token by token")
        page.line(series.values["hit_rate"], series, 1.0, lambda value: f"{value:.0%}")
        shown.append("the hit rate over tokens")
    # A trace knows what its tokens missed; what was read ahead is in a timeline alone.
    source = series if timeline is None else time_series(timeline, _MAX_VALUES)
    if "bytes" in source.values:
        missed = " on a miss, without what was read ahead" if timeline is None else ""
        page.title(f"Read from storage for each token{missed}")
        read = source.values["bytes"]
        page.line(read, source, _round_up(float(read.max()), 2.0), format_size)
        shown.append("bytes read over tokens")
    if timeline is not None:
        _add_times(page, timeline)
        shown.append("times of tokens and of layers")
    description = f"{heading(trace)}; {series.num_tokens} tokens. Shows {', '.join(shown)}."
    return Drawing(_WIDTH, math.ceil(page.y + 24), heading(trace), description, page.items)
