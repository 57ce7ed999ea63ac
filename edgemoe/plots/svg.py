"""A drawing as a self-contained SVG file: text stays text; it suits light and dark viewers."""

from __future__ import annotations

from xml.sax.saxutils import escape

from edgemoe.plots.drawing import COLORS, Drawing, Polyline, Rect, Text


def _clean(text: str) -> str:
    """Text that XML can hold: it has no way to write most control characters."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _style() -> str:
    """Attributes give the light colours to viewers that lack style sheets; this adds the dark."""
    dark = "".join(f".{name}{{fill:{pair[1]}}}" for name, pair in COLORS.items())
    lines = "".join(f".{name}-line{{stroke:{pair[1]}}}" for name, pair in COLORS.items())
    return f"<style>@media (prefers-color-scheme:dark){{{dark}{lines}}}</style>"


def _element(item: Rect | Polyline | Text) -> str:
    light = COLORS[item.color][0]
    if isinstance(item, Rect):
        place = "".join(
            f' {name}="{_number(value)}"'
            for name, value in (
                ("x", item.x),
                ("y", item.y),
                ("width", item.width),
                ("height", item.height),
            )
        )
        return f'<rect{place} class="{item.color}" fill="{light}"/>'
    if isinstance(item, Polyline):
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in item.points)
        return (
            f'<polyline points="{points}" class="{item.color}-line" style="fill:none" '
            f'stroke="{light}" stroke-width="{_number(item.width)}"/>'
        )
    return (
        f'<text x="{_number(item.x)}" y="{_number(item.y)}" class="{item.color}" fill="{light}" '
        f'text-anchor="{item.anchor}" font-size="{item.size}">{_clean(item.text)}</text>'
    )


def to_svg(drawing: Drawing) -> str:
    """The drawing as XML, ASCII characters and others as they are (write it as UTF-8)."""
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width}" '
        f'height="{drawing.height}" viewBox="0 0 {drawing.width} {drawing.height}" role="img" '
        'aria-labelledby="title description" font-family="sans-serif">\n'
        f'<title id="title">{_clean(drawing.title)}</title>\n'
        f'<desc id="description">{_clean(drawing.description)}</desc>\n{_style()}'
    )
    paper = Rect(0, 0, drawing.width, drawing.height, "paper")
    return "\n".join([head, *map(_element, (paper, *drawing.items)), "</svg>\n"])
