"""What a picture is made of: rectangles, lines and text, in pixels from the top left.

Colours have names; each way of drawing decides what they look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

HEAT_LEVELS = 10

# name -> (on light paper, on dark paper). heat0 is "never", the last heat "most".
COLORS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#16191d"),
    "ink": ("#1d2329", "#e4e7ea"),
    "muted": ("#5c6670", "#9aa4ae"),
    "grid": ("#d8dde2", "#343b42"),
    "shade": ("#eef1f4", "#20252b"),
    "compute": ("#2a7f62", "#4cc39a"),
    "overlap": ("#d9a520", "#e6bd4f"),
    "stall": ("#c0392b", "#ee7265"),
    "series": ("#2563a8", "#6cb2f5"),
    **{
        f"heat{level}": colors
        for level, colors in enumerate(
            (
                ("#eef1f4", "#20252b"),
                ("#d6e4f2", "#23384d"),
                ("#b8d3ea", "#254a69"),
                ("#94bfe0", "#285d86"),
                ("#6da7d3", "#2f72a3"),
                ("#4a8dc2", "#3f88bd"),
                ("#2f72ab", "#5b9fd0"),
                ("#1f5890", "#7fb8e0"),
                ("#153f70", "#a8d1ee"),
                ("#0b284e", "#d8ecfa"),
            )
        )
    },
}


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    color: str


@dataclass(frozen=True)
class Polyline:
    points: Sequence[tuple[float, float]]
    color: str
    width: float = 1.0


@dataclass(frozen=True)
class Text:
    """`y` is the base line; `anchor` is "start", "middle" or "end"."""

    x: float
    y: float
    text: str
    color: str = "ink"
    anchor: str = "start"
    size: int = 12


@dataclass
class Drawing:
    width: int
    height: int
    title: str
    description: str
    items: list[Rect | Polyline | Text] = field(default_factory=list)
