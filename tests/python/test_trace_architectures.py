"""Recording works for every architecture: dense layers, shared experts, every kind of router."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_models import decoder_models

from edgemoe import _core
from edgemoe.model import Model
from edgemoe.options import LoadOptions

GOLDEN = decoder_models()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_row_has_its_experts_in_every_moe_layer(path: Path) -> None:
    spec = _core.ModelFile(str(path)).spec()
    moe_layers = [
        layer
        for layer, (expert_bytes, dense_bytes) in enumerate(
            _core.ModelFile(str(path)).layer_bytes()
        )
        if expert_bytes > 0 and dense_bytes > 0
    ]
    tokens, steps = [1, 2, 3, 4, 5], []
    options = LoadOptions(memory="min", batch=3, context=16, trace=True)
    with Model(str(path), options, with_text=False) as model:
        plain = model.logits(tokens)
        model.record(lambda phase, events: steps.append(events))
        assert np.array_equal(model.logits(tokens), plain)
        stats = model.stats()
    assert [len(step["routing"]) for step in steps] == [
        rows * len(moe_layers) * spec["experts_used"] for rows in (3, 2)
    ]
    for step in steps:
        assert step["complete"]
        routing, layers = step["routing"], step["layers"]
        assert set(routing["layer"]) == set(moe_layers)
        assert layers["layer"].tolist() == list(range(spec["layers"]))
        # Each expert of a layer is one demand, and a hit when it was resident.
        for layer in layers:
            rows = routing[routing["layer"] == layer["layer"]]
            experts, first = np.unique(rows["expert"], return_index=True)
            assert layer["demands"] == len(experts)
            assert layer["hits"] == rows["resident"][first].sum()
    recorded = sum(int(step["layers"]["demands"].sum()) for step in steps)
    assert stats.expert_demands == 2 * recorded
