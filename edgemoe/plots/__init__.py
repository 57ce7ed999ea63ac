"""Pictures of traces: what to show (figures), and ways to draw it (SVG, PNG, terminal).

May use errors, sizes and traces. No dependency but numpy.
"""

from __future__ import annotations

from edgemoe.plots.figures import trace_drawing
from edgemoe.plots.plan_figure import PlanPicture, plan_drawing, plan_text
from edgemoe.plots.png import to_png
from edgemoe.plots.svg import to_svg
from edgemoe.plots.terminal import to_terminal

__all__ = [
    "PlanPicture",
    "plan_drawing",
    "plan_text",
    "to_png",
    "to_svg",
    "to_terminal",
    "trace_drawing",
]
