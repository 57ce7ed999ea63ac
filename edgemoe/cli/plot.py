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
from edgemoe.errors import ArgumentError
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
        _draw_plan(load_plan(values["trace"]), out, suffix, values["terminal"])
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


def _picture(plan: Plan) -> PlanPicture:
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
    mean = float(plan.predicted.get("bits_per_weight", bits.mean() if bits.size else 0.0))
    return PlanPicture(
        title=f"{name}: {mean:.3f} bits per expert weight, method {plan.method}",
        layers=layers,
        bits=bits,
        curve=[(float(point[0]), float(point[1])) for point in plan.predicted.get("curve", [])],
        chosen=(mean, plan.measured.get("kl_mean")),
    )


def _draw_plan(plan: Plan, out: str | None, suffix: str, terminal: bool) -> None:
    picture = _picture(plan)
    if not picture.layers:
        raise ArgumentError("the plan has no experts to draw")
    if out is not None:
        drawing = plan_drawing(picture)
        data = to_png(drawing) if suffix == ".png" else to_svg(drawing).encode("utf-8")
        with output_file(out) as file:
            file.write(data)
    if terminal:
        print(plan_text(picture), end="")
