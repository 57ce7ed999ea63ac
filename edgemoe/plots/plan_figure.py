"""The picture of a plan: bits of every expert, and the curve of sizes and divergences it is on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgemoe.plots.drawing import HEAT_LEVELS, Drawing, Polyline, Rect, Text
from edgemoe.traces import Floats

_WIDTH = 960
_LEFT, _RIGHT = 80, 24
_PLOT = _WIDTH - _LEFT - _RIGHT
_CURVE_HEIGHT = 220
_MAX_EXPERTS = 512  # columns; beyond that, experts are left out evenly


@dataclass(frozen=True)
class PlanPicture:
    """bits: [layers, experts] bits per weight of each expert, of the MoE layers `layers`.

    curve   (bits per weight, divergence) of the best choices from small to large; may be empty
    chosen  the same of the plan; the divergence is None where it was not measured
    """

    title: str
    layers: Sequence[int]
    bits: Floats
    curve: Sequence[tuple[float, float]]
    chosen: tuple[float, float | None]


def plan_drawing(plan: PlanPicture) -> Drawing:
    """A heat map of bits, and below it the curve with the plan's place on it."""
    drawing = Drawing(_WIDTH, 0, plan.title, "bits per weight of every expert, by layer")
    drawing.items.append(Text(_LEFT, 28, plan.title, size=15))
    bottom = _heat_map(drawing, plan, 70)
    if sum(kl > 0 for _, kl in plan.curve) > 1:
        bottom = _curve(drawing, plan, bottom + 60)
    drawing.height = round(bottom + 30)
    return drawing


def _level(bits: float, low: float, high: float) -> int:
    """1 to the last heat, by the logarithm of the bits."""
    share = math.log(bits / low) / math.log(high / low) if high > low else 1.0
    return 1 + min(HEAT_LEVELS - 2, int(share * (HEAT_LEVELS - 1)))


def _heat_map(drawing: Drawing, plan: PlanPicture, top: float) -> float:
    drawing.items.append(Text(_LEFT, top - 14, "Bits per weight of each expert, by layer", size=13))
    step = math.ceil(plan.bits.shape[1] / _MAX_EXPERTS)
    bits = plan.bits[:, ::step]
    rows, columns = bits.shape
    height, width = max(4.0, min(16.0, 480.0 / rows)), _PLOT / columns
    low, high = float(bits.min()), float(bits.max())
    for row in range(rows):
        for column in range(columns):
            color = f"heat{_level(float(bits[row, column]), low, high)}"
            place = (_LEFT + column * width, top + row * height)
            drawing.items.append(Rect(*place, width, height, color))
    labels = max(1, math.ceil(rows * 14 / (rows * height)))
    for row in range(0, rows, labels):
        y = top + (row + 0.5) * height + 4
        drawing.items.append(Text(_LEFT - 8, y, str(plan.layers[row]), "muted", "end", 11))
    bottom = top + rows * height
    labels = max(1, columns // 16)
    for column in range(0, columns, labels):
        x = _LEFT + (column + 0.5) * width
        drawing.items.append(Text(x, bottom + 15, str(column * step), "muted", "middle", 11))
    drawing.items.append(Text(_LEFT, bottom + 36, f"{low:.2f} bits", "muted", size=11))
    for level in range(1, HEAT_LEVELS):
        x = _LEFT + 70 + 14 * (level - 1)
        drawing.items.append(Rect(x, bottom + 26, 14, 12, f"heat{level}"))
    x = _LEFT + 80 + 14 * (HEAT_LEVELS - 1)
    drawing.items.append(Text(x, bottom + 36, f"{high:.2f} bits", "muted", size=11))
    return float(bottom + 40)


def _curve(drawing: Drawing, plan: PlanPicture, top: float) -> float:
    title = "Divergence of the best choice (logarithmic) over bits per weight"
    drawing.items.append(Text(_LEFT, top - 14, title, size=13))
    curve = [(bits, kl) for bits, kl in plan.curve if kl > 0]
    chosen = [(plan.chosen[0], plan.chosen[1])] if plan.chosen[1] else []
    points = [*curve, *chosen]
    left, right = (pick(point[0] for point in points) for pick in (min, max))
    low, high = (math.log10(pick(point[1] for point in points)) for pick in (min, max))

    def place(bits: float, kl: float) -> tuple[float, float]:
        x = _LEFT + _PLOT * (bits - left) / max(right - left, 1e-9)
        return x, top + _CURVE_HEIGHT * (high - math.log10(kl)) / max(high - low, 1e-9)

    for tick in range(math.ceil(left), math.floor(right) + 1):
        x = place(tick, 10.0**high)[0]
        drawing.items.append(Polyline([(x, top), (x, top + _CURVE_HEIGHT)], "grid"))
        y = top + _CURVE_HEIGHT + 15
        drawing.items.append(Text(x, y, str(tick), "muted", "middle", 11))
    for power in range(math.ceil(low), math.floor(high) + 1):
        y = place(left, 10.0**power)[1]
        drawing.items.append(Polyline([(_LEFT, y), (_LEFT + _PLOT, y)], "grid"))
        drawing.items.append(Text(_LEFT - 8, y + 4, f"{10.0**power:g}", "muted", "end", 11))
    drawing.items.append(Polyline([place(*one) for one in curve], "series", width=2))
    for bits, kl in chosen:
        if kl is not None:
            x, y = place(bits, kl)
            drawing.items.append(Rect(x - 4, y - 4, 8, 8, "stall"))
            drawing.items.append(Text(x + 8, y - 6, "this plan, measured", "muted", size=11))
    return top + _CURVE_HEIGHT + 20


def plan_text(plan: PlanPicture) -> str:
    """The same for a terminal: a digit for each expert, lines for the curve."""
    lines = [plan.title, "bits per weight of each expert, rounded:"]
    for layer, bits in zip(plan.layers, plan.bits, strict=True):
        digits = "".join(str(min(9, round(float(one)))) for one in bits)
        lines.append(f"{layer:4d}  {digits}")
    if plan.curve:
        lines.append("  bits  divergence")
        lines += [f"{bits:6.3f}  {kl:10.5f}" for bits, kl in plan.curve]
    bits, measured = plan.chosen
    lines.append(
        f"{bits:6.3f}  {'not measured' if measured is None else f'{measured:10.5f}'}  plan"
    )
    return "\n".join(lines) + "\n"
