"""The golden models (tests/golden/README.md) and what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemoe import _core

GOLDEN = Path(__file__).parent.parent / "golden"


def names() -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob("*.gguf"))


def inputs_of(name: str) -> tuple[list[int], list[int] | None]:
    """The tokens, and what the encoder reads of a model that has one."""
    arrays = np.load(GOLDEN / f"{name}.npz")
    source = arrays["source"].tolist() if "source" in arrays else None
    return arrays["tokens"].tolist(), source


def has_encoder(path: Path) -> bool:
    return bool(_core.ModelFile(str(path)).spec()["encoder_layers"])


def decoder_models() -> list[Path]:
    """Those without an encoder: what records or packs models does so for these alone."""
    return [path for path in sorted(GOLDEN.glob("*.gguf")) if not has_encoder(path)]
