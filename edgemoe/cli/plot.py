"""edgemoe plot: pictures of a trace."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from edgemoe.output_file import output_file
from edgemoe.plots import to_png, to_svg, to_terminal, trace_drawing
from edgemoe.traces import read_timeline, read_trace

_SUFFIXES = (".svg", ".png")


@click.command()
@click.argument("trace", type=click.Path())
@click.argument("timeline", required=False, type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="The picture to write: FILE.svg or FILE.png.")
@click.option("--terminal", is_flag=True, help="Draw on the terminal, as wide as that is.")
def plot(**values: Any) -> None:
    """Draw TRACE: uses of experts, hit rate and bytes read; and times, with TIMELINE.

    Both are files that `edgemoe trace` wrote, or others of their format (docs/traces.md).
    """
    out: str | None = values["out"]
    if out is None and not values["terminal"]:
        raise click.UsageError("say where to draw: -o FILE.svg, -o FILE.png or --terminal")
    suffix = Path(out).suffix.lower() if out is not None else ""
    if out is not None and suffix not in _SUFFIXES:
        raise click.UsageError(f"{out}: pictures are .svg or .png files")
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
