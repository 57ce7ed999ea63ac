"""Every architecture gives the logits of llama.cpp (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgemoe import _core
from edgemoe.model import Model
from edgemoe.options import LoadOptions

GOLDEN = Path(__file__).parent.parent / "golden"
MODELS = sorted(path.stem for path in GOLDEN.glob("*.gguf"))
FLOAT_BOUND = 1e-4
BOUNDS = {
    "gpt-oss-mxfp4": 0.05,  # activations that meet quantised weights are rounded to 8 bits
    "gemma4": 3e-3,  # the reference reads GELU from a table of half floats
    "grok": 3e-3,  # likewise
}


def logits_of(name: str, tokens: list[int], *, one_by_one: bool) -> npt.NDArray[np.float32]:
    options = LoadOptions(memory="min", context=len(tokens), kv_type="f32")
    with Model(str(GOLDEN / f"{name}.gguf"), options, with_text=False) as model:
        return model.logits(tokens, one_by_one=one_by_one)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_llama_cpp(name: str, one_by_one: bool) -> None:
    reference = np.load(GOLDEN / f"{name}.npz")
    expected = reference["prefill"]
    found = logits_of(name, reference["tokens"].tolist(), one_by_one=one_by_one)
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert error < BOUNDS.get(name, FLOAT_BOUND)


def test_every_supported_architecture_has_a_golden_model() -> None:
    named = {
        _core.ModelFile(str(GOLDEN / f"{name}.gguf")).spec()["architecture"] for name in MODELS
    }
    assert named == set(_core.architectures())
