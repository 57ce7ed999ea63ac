"""A drawing as a PNG file: two pixels for each of the drawing's, on light paper."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import numpy.typing as npt

from edgemoe.plots import glyphs
from edgemoe.plots.drawing import COLORS, Drawing, Polyline, Rect, Text

_SCALE = 2
_GLYPH_SCALE = 2  # pixels of the picture for one of a glyph
_ADVANCE = (glyphs.WIDTH + 1) * _GLYPH_SCALE

_Pixels = npt.NDArray[np.uint8]


def _rgb(name: str) -> _Pixels:
    value = COLORS[name][0].lstrip("#")
    return np.array([int(value[at : at + 2], 16) for at in (0, 2, 4)], dtype=np.uint8)


def _fill(pixels: _Pixels, x0: float, y0: float, x1: float, y1: float, color: str) -> None:
    """Pixels of the rectangle; at least one in each direction, so that thin things show."""
    left, top = max(0, round(x0)), max(0, round(y0))
    right, bottom = max(left + 1, round(x1)), max(top + 1, round(y1))
    pixels[top:bottom, left:right] = _rgb(color)


def _draw_line(pixels: _Pixels, line: Polyline) -> None:
    half = line.width * _SCALE / 2
    for (x0, y0), (x1, y1) in zip(line.points, line.points[1:], strict=False):
        steps = 1 + math.ceil(max(abs(x1 - x0), abs(y1 - y0)) * _SCALE)
        if x0 == x1 or y0 == y1:
            steps = 1
            left, right = sorted((x0 * _SCALE, x1 * _SCALE))
            top, bottom = sorted((y0 * _SCALE, y1 * _SCALE))
            _fill(pixels, left - half, top - half, right + half, bottom + half, line.color)
            continue
        for step in range(steps + 1):
            x = (x0 + (x1 - x0) * step / steps) * _SCALE
            y = (y0 + (y1 - y0) * step / steps) * _SCALE
            _fill(pixels, x - half, y - half, x + half, y + half, line.color)


def _draw_text(pixels: _Pixels, text: Text) -> None:
    width = len(text.text) * _ADVANCE
    x = round(text.x * _SCALE) - {"start": 0, "middle": width // 2, "end": width}[text.anchor]
    y = round(text.y * _SCALE) - glyphs.HEIGHT * _GLYPH_SCALE
    for character in text.text:
        ink = glyphs.glyph(character).repeat(_GLYPH_SCALE, axis=0).repeat(_GLYPH_SCALE, axis=1)
        if x >= 0 and y >= 0 and x + ink.shape[1] <= pixels.shape[1]:
            area = pixels[y : y + ink.shape[0], x : x + ink.shape[1]]
            area[ink[: area.shape[0]]] = _rgb(text.color)
        x += _ADVANCE


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def to_png(drawing: Drawing) -> bytes:
    """The drawing as the bytes of an 8-bit RGB file, with its title and description as text."""
    width, height = drawing.width * _SCALE, drawing.height * _SCALE
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:] = _rgb("paper")
    for item in drawing.items:
        if isinstance(item, Rect):
            right, bottom = item.x + item.width, item.y + item.height
            edges = (item.x, item.y, right, bottom)
            x0, y0, x1, y1 = (edge * _SCALE for edge in edges)
            _fill(pixels, x0, y0, x1, y1, item.color)
        elif isinstance(item, Polyline):
            _draw_line(pixels, item)
        else:
            _draw_text(pixels, item)
    # Every row begins with its filter: 0, none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    texts = b"".join(
        _chunk(b"tEXt", key + b"\0" + text.encode("latin-1", "replace"))
        for key, text in ((b"Title", drawing.title), (b"Description", drawing.description))
    )
    data = _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + texts + data + _chunk(b"IEND", b"")
