"""Modes of the engine: what each keeps, reads and takes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Run

from edgemoe import ArgumentError, MemoryBudgetError, Model, PreloadPolicy
from edgemoe.options import MODES
from edgemoe.stats import Stats

TOKENS = [1, *((7 * i * i + 13 * i + 5) % 4096 for i in range(20))]
BASELINES = ("on-demand", "unbuffered", "layer-by-layer")


def bench(edgemoe: Run, demo: str, *options: str) -> dict[str, Any]:
    common = ("-p", "0", "-n", "6", "-r", "1", "--json")
    result = edgemoe("bench", demo, *common, *options)
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def decode(demo: str, mode: str, **options: Any) -> tuple[Model, Stats, Stats]:
    """Evaluates TOKENS one by one; the model, and its counters before and after."""
    model = Model.load(demo, context=64, mode=mode, **options)
    before = model.stats()
    model.logits(TOKENS, one_by_one=True)
    return model, before, model.stats()


@pytest.mark.parametrize("mode", MODES)
def test_bench_says_the_mode(edgemoe: Run, demo: str, mode: str) -> None:
    report = bench(edgemoe, demo, "--mode", mode)
    assert report["mode"] == mode
    assert report["memory"]["peak_bytes"] <= report["memory"]["budget_bytes"]


def test_resident_reads_when_loading_and_never_again(demo: str) -> None:
    model, before, after = decode(demo, "resident", memory="min")
    with model:
        assert before.loading.bytes_read > 0
        assert after.bytes_read == before.bytes_read == 0
        assert after.decode.expert_hits == after.decode.expert_demands > 0


def test_on_demand_reads_at_every_use(demo: str) -> None:
    model, _, after = decode(demo, "on-demand", memory="1GiB")
    with model:
        assert after.expert_hits == after.read_ahead_bytes == 0
        assert after.evictions == after.expert_demands > 0


def test_unbuffered_hits_only_what_was_read_ahead(demo: str) -> None:
    model, _, after = decode(
        demo, "unbuffered", memory="1GiB", preload=PreloadPolicy("always", layers=1)
    )
    with model:
        assert after.useful_bytes > 0
        assert after.useful_bytes + after.wasted_bytes == after.read_ahead_bytes
        assert after.layers[0].hits == 0  # nothing guesses it, and nothing was kept


def test_layer_by_layer_reads_every_expert_of_every_layer(demo: str) -> None:
    model, _, after = decode(demo, "layer-by-layer", memory="1GiB")
    with model:
        experts = sum(layer.demands > 0 for layer in after.layers)
        assert experts > 0
        per_layer = {layer.demands for layer in after.layers if layer.demands > 0}
        (demands,) = per_layer  # the same of all layers: all experts at each step
        assert demands % len(TOKENS) == 0
        with Model.load(demo, context=64, memory="1GiB", mode="on-demand") as other:
            other.logits(TOKENS, one_by_one=True)
            assert after.bytes_read > 1.5 * other.stats().bytes_read


@pytest.mark.parametrize("mode", BASELINES)
def test_baselines_take_the_memory_that_they_use(edgemoe: Run, demo: str, mode: str) -> None:
    plans = []
    for memory in ("min", "1GiB"):
        result = edgemoe("inspect", demo, "--mode", mode, "--memory", memory, "--json")
        plans.append(json.loads(result.stdout)["memory_plan"])
    assert plans[0]["expert_pool_bytes"] == plans[1]["expert_pool_bytes"]
    assert plans[0]["expert_pool_bytes"] < plans[0]["all_experts_bytes"]


def test_resident_needs_the_memory(fails: Callable[..., str], demo: str) -> None:
    message = fails(1, "run", demo, "-p", "x", "--mode", "resident", "--memory", "50MiB")
    assert "too small for mode resident; the least that runs is" in message
    with pytest.raises(MemoryBudgetError, match="mode resident"):
        Model.load(demo, mode="resident", memory="50MiB")


@pytest.mark.parametrize("mode", ["resident", "on-demand", "layer-by-layer"])
@pytest.mark.parametrize("preload", ["always", "none"])
def test_a_preload_policy_goes_with_modes_that_guess(
    fails: Callable[..., str], demo: str, mode: str, preload: str
) -> None:
    message = fails(1, "run", demo, "-p", "x", "--mode", mode, "--preload", preload)
    assert f"mode {mode}" in message
    assert "unbuffered" in message


def test_an_unknown_mode(fails: Callable[..., str], demo: str) -> None:
    assert "layer-by-layer" in fails(2, "bench", demo, "--mode", "psychic")
    with pytest.raises(ArgumentError, match="known: stream, resident"):
        Model.load(demo, mode="psychic")
