"""What is said wherever an option that changes results is on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgemoe.model import Model
from edgemoe.sizes import format_size


def lossy_routing_line(figures: Mapping[str, Any]) -> str:
    """One line for the fields of stats.LossyRouting."""
    return (
        f"lossy: routing kept {figures['agreement']:.2%} of the routers' choice by weight (target "
        f"{figures['target']:.0%}); {figures['substitutions']} of {figures['choices']} experts "
        f"were others, {format_size(figures['bytes_saved'])} were not read"
    )


def lossy_figures(model: Model) -> dict[str, Any]:
    """The key "lossy_routing" for JSON; nothing where results are exact."""
    lossy = model.stats().lossy_routing
    return {} if lossy is None else {"lossy_routing": asdict(lossy)}


def print_lossy(model: Model) -> None:
    """Says on standard error what lossy options did; nothing where results are exact."""
    figures = lossy_figures(model)
    if figures:
        print(lossy_routing_line(figures["lossy_routing"]), file=sys.stderr)
