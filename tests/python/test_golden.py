"""Every architecture gives the logits of its reference (tests/golden/README.md)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from golden_models import GOLDEN, inputs_of, names

from edgemoe import _core
from edgemoe.model import Model
from edgemoe.options import LoadOptions

MODELS = names()
FLOAT_BOUND = 1e-4
BOUNDS = {
    "gpt-oss-mxfp4": 0.05,  # activations that meet quantised weights are rounded to 8 bits
    "gemma4": 3e-3,  # the reference reads GELU from a table of half floats
    "grok": 3e-3,  # likewise
}


def logits_of(name: str, *, one_by_one: bool) -> npt.NDArray[np.float32]:
    tokens, source = inputs_of(name)
    context = max(len(tokens), len(source or ()))
    options = LoadOptions(memory="min", context=context, kv_type="f32")
    with Model(str(GOLDEN / f"{name}.gguf"), options, with_text=False) as model:
        return model.logits(tokens, one_by_one=one_by_one, source=source)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_the_reference(name: str, one_by_one: bool) -> None:
    expected = np.load(GOLDEN / f"{name}.npz")["prefill"]
    found = logits_of(name, one_by_one=one_by_one)
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert error < BOUNDS.get(name, FLOAT_BOUND)


def test_every_supported_architecture_has_a_golden_model() -> None:
    named = {
        _core.ModelFile(str(GOLDEN / f"{name}.gguf")).spec()["architecture"] for name in MODELS
    }
    assert named == set(_core.architectures())
