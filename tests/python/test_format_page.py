"""docs/format.md and the code say the same: keys, and the bytes of the in-memory layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgemoe import _core

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/format.md").read_text()
KEYS = (ROOT / "csrc/weights/container_keys.h").read_text()
LINE = re.compile(r"^\| (\w+) \| (\d+) \| ((?:\d+\+\d+/\d+ ?)+)\|$", re.MULTILINE)
BLOCKS = {name: (elements, size) for name, _, elements, size in _core.testing.quant_types()}

Fields = list[tuple[int, int, int]]


def fields_of_the_page() -> dict[str, Fields]:
    found = {}
    for name, size, text in LINE.findall(PAGE):
        assert int(size) == BLOCKS[name][1], name
        found[name] = [
            (int(offset), int(count), int(unit))
            for offset, count, unit in re.findall(r"(\d+)\+(\d+)/(\d+)", text)
        ]
    return found


def packed_by_the_page(fields: Fields, matrix: np.ndarray) -> bytes:
    """`matrix` is [rows, blocks, bytes of a block]."""
    out = b""
    for first in range(0, len(matrix), 8):
        group = matrix[first : first + 8]
        for block in range(group.shape[1]):
            for offset, size, unit in fields:
                for at in range(offset, offset + size, unit):
                    out += group[:, block, at : at + unit].tobytes()
    return out


def test_the_page_lists_the_keys_of_the_code() -> None:
    documented = set(re.findall(r"^\| `(edgemoe\.[a-z._]+)` \|", PAGE, re.MULTILINE))
    assert documented == set(re.findall(r'"(edgemoe\.[a-z._]+[a-z])"', KEYS))


@pytest.mark.parametrize("name", sorted(BLOCKS))
@pytest.mark.parametrize("rows", [1, 8, 19])
def test_the_layout_is_the_page_s(name: str, rows: int) -> None:
    elements, size = BLOCKS[name]
    rng = np.random.default_rng(rows)
    matrix = rng.integers(0, 256, (rows, 3, size), dtype=np.uint8)
    regrouped = _core.testing.regroup(name, matrix.tobytes(), rows, 3 * elements)
    fields = fields_of_the_page().get(name, [(0, size, size)])
    if name not in fields_of_the_page():
        assert regrouped == matrix.tobytes()
    else:
        assert regrouped == packed_by_the_page(fields, matrix)
