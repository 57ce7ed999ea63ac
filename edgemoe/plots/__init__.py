"""Pictures of traces: what to show (figures), and ways to draw it (SVG, PNG, terminal).

May use errors, sizes and traces. No dependency but numpy.
"""

from __future__ import annotations

from edgemoe.plots.figures import trace_drawing
from edgemoe.plots.png import to_png
from edgemoe.plots.svg import to_svg
from edgemoe.plots.terminal import to_terminal

__all__ = ["to_png", "to_svg", "to_terminal", "trace_drawing"]
