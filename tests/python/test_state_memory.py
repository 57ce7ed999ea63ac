"""The state of recurrent layers is part of the memory plan, and does not grow with the context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgemoe import _core

GOLDEN = Path(__file__).parent.parent / "golden"
# Of each layer: inputs that its convolution keeps, then the matrices of its heads, in tiles of 32
# columns (Mamba: one of all channels). Taps and sizes as in the golden models.
STATE_FLOATS = {
    "lfm2moe": 2 * (2 * 64),
    "qwen3next": 3 * (3 * 128 + 4 * 16 * 32),
    "granitehybrid": 2 * (3 * 192 + 8 * 16 * 32),
    "jamba": 3 * (3 * 128 + 16 * 128),
}


@pytest.mark.parametrize("name", STATE_FLOATS)
def test_a_state_has_its_size_once(name: str) -> None:
    file = _core.ModelFile(str(GOLDEN / f"{name}.gguf"))

    def cache_bytes(context: int) -> int:
        options: dict[str, Any] = {"context": context, "kv_type": "f32"}
        return int(file.plan(options)["kv_cache_bytes"])

    assert 2 * cache_bytes(64) - cache_bytes(128) == 4 * STATE_FLOATS[name]
