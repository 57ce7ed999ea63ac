"""edgemoe plot: pictures of a trace."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgemoe import _core
from edgemoe.bitwidth.plan_file import Plan, load_plan
from edgemoe.errors import ArgumentError, ModelFormatError
from edgemoe.output_file import output_file
from edgemoe.plots import (
    PlanPicture,
    plan_drawing,
    plan_text,
    to_png,
    to_svg,
    to_terminal,
    trace_drawing,
)
from edgemoe.traces import read_timeline, read_trace

_SUFFIXES = (".svg", ".png")
_MOST_BITS, _MOST_DIVERGENCE, _LEAST = 64.0, 1e9, 1e-12


@click.command()
@click.argument("trace", type=click.Path())
@click.argument("timeline", required=False, type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="The picture to write: FILE.svg or FILE.png.")
@click.option("--terminal", is_flag=True, help="Draw on the terminal, as wide as that is.")
def plot(**values: Any) -> None:
    """Draw TRACE: uses of experts, hit rate and bytes read; and times, with TIMELINE.

    Both are files that `edgemoe trace` wrote, or others of their format (docs/traces.md). In place
    of a trace, a plan that `edgemoe plan` wrote (PLAN.json): bits of every expert, and the curve of
    sizes and divergences.
    """
    out: str | None = values["out"]
    if out is None and not values["terminal"]:
        raise click.UsageError("say where to draw: -o FILE.svg, -o FILE.png or --terminal")
    suffix = Path(out).suffix.lower() if out is not None else ""
    if out is not None and suffix not in _SUFFIXES:
        raise click.UsageError(f"{out}: pictures are .svg or .png files")
    if values["trace"].lower().endswith(".json"):
        if values["timeline"]:
            raise click.UsageError("a plan has no timeline; give one or the other")
        _draw_plan(values["trace"], out, suffix, values["terminal"])
        return
    trace = read_trace(values["trace"])
    timeline = read_timeline(values["timeline"]) if values["timeline"] else None
    if out is not None:
        drawing = trace_drawing(trace, timeline)
        data = to_png(drawing) if suffix == ".png" else to_svg(drawing).encode("utf-8")
        with output_file(out) as file:
            file.write(data)
    if values["terminal"]:
        width = shutil.get_terminal_size().columns
        encoding = sys.stdout.encoding or "ascii"
        print(to_terminal(trace, timeline, width=width, encoding=encoding), end="")


def _number(path: str, place: str, value: Any, most: float) -> float:
    """Of a plan's JSON; what is less than a plan can mean is 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise ModelFormatError(f"{path}: {place} is no number up to {most:g}; it cannot be drawn")
    return float(value) if value >= _LEAST else 0.0


def _curve(path: str, points: Any) -> list[tuple[float, float]]:
    place = "predicted.curve"
    if not isinstance(points, list):
        raise ModelFormatError(f"{path}: {place} is no list; it cannot be drawn")
    curve = []
    for index, point in enumerate(points):
        if not isinstance(point, list) or len(point) < 2:
            raise ModelFormatError(f"{path}: {place}[{index}] is no point; it cannot be drawn")
        bits = _number(path, f"{place}[{index}][0]", point[0], _MOST_BITS)
        curve.append((bits, _number(path, f"{place}[{index}][1]", point[1], _MOST_DIVERGENCE)))
    return curve


def _picture(path: str, plan: Plan) -> PlanPicture:
    layers = [index for index, layer in enumerate(plan.experts) if layer is not None]
    bits = np.array(
        [
            [np.mean([_core.bits_per_weight(name) for name in types]) for types in layer]
            for layer in plan.experts
            if layer is not None
        ],
        dtype=np.float64,
    )
    name = plan.model.name or plan.model.architecture
    mean = plan.predicted.get("bits_per_weight", float(bits.mean()) if bits.size else 0.0)
    mean = _number(path, "predicted.bits_per_weight", mean, _MOST_BITS)
    measured = plan.measured.get("kl_mean")
    if measured is not None:
        measured = _number(path, "measured.kl_mean", measured, _MOST_DIVERGENCE)
    return PlanPicture(
        title=f"{name}: {mean:.3f} bits per expert weight, method {plan.method}",
        layers=layers,
        bits=bits,
        curve=_curve(path, plan.predicted.get("curve", [])),
        chosen=(mean, measured),
    )


def _draw_plan(path: str, out: str | None, suffix: str, terminal: bool) -> None:
    picture = _picture(path, load_plan(path))
    if not picture.layers:
        raise ArgumentError("the plan has no experts to draw")
    if out is not None:
        drawing = plan_drawing(picture)
        data = to_png(drawing) if suffix == ".png" else to_svg(drawing).encode("utf-8")
        with output_file(out) as file:
            file.write(data)
    if terminal:
        print(plan_text(picture), end="")
