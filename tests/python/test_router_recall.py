"""Routers that are asked early see what they see in their own layer: same norm, bias and score."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_models import decoder_models

from edgemoe.model import Model
from edgemoe.options import LoadOptions

GOLDEN = decoder_models()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_router_on_its_own_input_names_all_experts(path: Path) -> None:
    options = LoadOptions(memory="min", batch=4, context=32, trace=True)
    with Model(str(path), options, with_text=False) as model:
        model.logits([1, 2, 3, 4, 5])
        for token in range(20):
            model._open_sequence().append([7 * token % 200])
        recall = model.router_recall()
    assert recall[0] == 1.0
    assert all(share is None or 0 < share <= 1 for share in recall[1:])
