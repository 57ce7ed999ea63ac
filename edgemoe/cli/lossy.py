"""What is said wherever an option that changes results is on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgemoe.model import Model
from edgemoe.sizes import format_size


def lossy_lines(figures: Mapping[str, Any]) -> list[str]:
    """A line for each of the keys "lossy_routing" and "lossy_low_copy" that has a value."""
    lines = []
    if routing := figures.get("lossy_routing"):
        lines.append(
            f"lossy: routing kept {routing['agreement']:.2%} of the routers' choice by weight "
            f"(target {routing['target']:.0%}); {routing['substitutions']} of {routing['choices']} "
            f"experts were others, {format_size(routing['bytes_saved'])} were not read"
        )
    if low := figures.get("lossy_low_copy"):
        lines.append(
            f"lossy: low copies computed {low['share']:.2%} of the routing weight (threshold "
            f"{low['threshold']:g}); {low['low_choices']} of {low['choices']} experts, "
            f"{format_size(low['bytes_saved'])} less were read"
        )
    return lines


def lossy_figures(model: Model) -> dict[str, Any]:
    """The keys of the lossy options that are on, for JSON; nothing where results are exact."""
    stats = model.stats()
    parts = {"lossy_routing": stats.lossy_routing, "lossy_low_copy": stats.lossy_low_copy}
    return {name: asdict(part) for name, part in parts.items() if part is not None}


def print_lossy(model: Model) -> None:
    """Says on standard error what lossy options did; nothing where results are exact."""
    for line in lossy_lines(lossy_figures(model)):
        print(line, file=sys.stderr)
