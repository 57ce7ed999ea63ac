"""Promise 2 of the design for every architecture: each part of the spec that some family has must
keep it, not only those of the demo model."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from golden_models import GOLDEN, inputs_of, names

from edgemoe import _core
from edgemoe.model import Model
from edgemoe.options import LoadOptions

MODELS = names()

# Logits of every model into a folder, in a process of its own: a level is chosen once.
LEVEL_SCRIPT = """
import sys
import numpy as np
from edgemoe.model import Model
from edgemoe.options import LoadOptions
folder, *models = sys.argv[1:]
for path in models:
    inputs = np.load(path.replace(".gguf", ".npz"))
    source = inputs["source"].tolist() if "source" in inputs else None
    options = LoadOptions(memory="min", context=64, batch=16)
    with Model(path, options, with_text=False) as model:
        rows = model.logits(inputs["tokens"].tolist(), source=source)
        np.save(folder + "/" + path.split("/")[-1], rows)
"""

CHANGES = [
    LoadOptions(memory="min", context=64, batch=1, threads=1),
    LoadOptions(memory="min", context=64, batch=7, threads=3),
    LoadOptions(memory="min", context=64, batch=64, threads=2, eviction="lru"),
    LoadOptions(memory="1GiB", context=64, batch=5, threads=2),
]


def logits(name: str, options: LoadOptions, *, one_by_one: bool = False) -> npt.NDArray[np.float32]:
    with Model(str(GOLDEN / f"{name}.gguf"), options, with_text=False) as model:
        tokens, source = inputs_of(name)
        return model.logits(tokens, one_by_one=one_by_one, source=source)


@pytest.fixture(scope="module", params=MODELS)
def expected(request: pytest.FixtureRequest) -> tuple[str, npt.NDArray[np.float32]]:
    """Everything resident, one thread, one batch."""
    name = str(request.param)
    return name, logits(name, LoadOptions(memory="1GiB", context=64, batch=64, threads=1))


@pytest.mark.parametrize("options", CHANGES, ids=range(len(CHANGES)))
def test_budget_threads_and_batches(
    expected: tuple[str, npt.NDArray[np.float32]], options: LoadOptions
) -> None:
    name, rows = expected
    assert np.array_equal(logits(name, options), rows)


def test_one_by_one(expected: tuple[str, npt.NDArray[np.float32]]) -> None:
    name, rows = expected
    assert np.array_equal(logits(name, CHANGES[1], one_by_one=True), rows)


def test_a_sequence_that_is_taken_back(expected: tuple[str, npt.NDArray[np.float32]]) -> None:
    name, rows = expected
    tokens, source = inputs_of(name)
    other = [(token + 1) % 200 for token in tokens[20:30]]
    with Model(str(GOLDEN / f"{name}.gguf"), CHANGES[1], with_text=False) as model:
        sequence = model._open_sequence()
        if source is not None:
            sequence.encode(source)
        sequence.evaluate(tokens[:20] + other)
        sequence.evaluate(tokens[:25])
        assert np.array_equal(sequence.last_logits(), rows[24])
        sequence.evaluate(tokens)
        assert np.array_equal(sequence.last_logits(), rows[-1])


def test_levels(tmp_path_factory: pytest.TempPathFactory) -> None:
    paths = [str(GOLDEN / f"{name}.gguf") for name in MODELS]
    digests: dict[str, dict[str, bytes]] = {}
    for level in _core.levels():
        folder = tmp_path_factory.mktemp(level)
        subprocess.run(
            [sys.executable, "-c", LEVEL_SCRIPT, str(folder), *paths],
            env={**os.environ, "EDGEMOE_LEVEL": level},
            cwd=folder,
            check=True,
        )
        digests[level] = {path.stem: path.read_bytes() for path in folder.iterdir()}
    first = digests[_core.levels()[0]]
    assert len(first) == len(MODELS)
    for level, found in digests.items():
        for name, content in found.items():
            assert content == first[name], f"{name} at {level}"
