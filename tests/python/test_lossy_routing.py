"""Lossy routing: named in every output, kept to its target, and nothing at all while it is off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, half_resident

from edgemoe import ArgumentError, Model
from edgemoe.perplexity import MemoryBase, measure_perplexity

TOKENS = [1, *((7 * i * i + 13 * i + 5) % 4096 for i in range(120))]
TEXT = "There was once a king who had three daughters, and the youngest was so fair that the sun "


def logits(demo: str, agreement: float | None, *, one_by_one: bool = True) -> np.ndarray:
    with half_resident(demo, lossy_routing=agreement) as model:
        return model.logits(TOKENS, one_by_one=one_by_one)


def test_prefill_is_exact(demo: str) -> None:
    expected = logits(demo, None, one_by_one=False)
    assert np.array_equal(logits(demo, 0.5, one_by_one=False), expected)


def test_decode_changes_and_everything_resident_is_exact(demo: str) -> None:
    expected = logits(demo, None)
    assert not np.array_equal(logits(demo, 0.5), expected)
    with Model.load(demo, context=128, memory="1GiB", mode="resident", lossy_routing=0.5) as model:
        assert np.array_equal(model.logits(TOKENS, one_by_one=True), expected)
        lossy = model.stats().lossy_routing
        assert lossy is not None
        assert (lossy.agreement, lossy.substitutions, lossy.bytes_saved) == (1.0, 0, 0)


@pytest.mark.parametrize("agreement", [0.7, 0.9])
def test_it_reads_less_and_keeps_its_target(demo: str, agreement: float) -> None:
    with half_resident(demo, lossy_routing=None) as model:
        model.logits(TOKENS, one_by_one=True)
        exact = model.stats()
    with half_resident(demo, lossy_routing=agreement) as model:
        assert model.is_lossy
        model.logits(TOKENS, one_by_one=True)
        lossy = model.stats()
    assert exact.lossy_routing is None
    routing = lossy.lossy_routing
    assert routing is not None
    assert routing.target == agreement
    assert agreement <= routing.agreement < 1
    assert routing.choices == lossy.decode.expert_demands == exact.decode.expert_demands
    assert routing.substitutions > 0
    assert routing.bytes_saved > 0
    assert lossy.bytes_read < exact.bytes_read
    assert lossy.read_ahead_bytes == 0


def test_divergence_is_measured_token_by_token(demo: str) -> None:
    base = MemoryBase()
    with Model.load(demo, context=64) as model:
        measure_perplexity(model, TEXT * 6, context=64, base=None, save_base=base)
    with half_resident(demo, lossy_routing=0.8, context=64) as model:
        batch = measure_perplexity(model, TEXT * 6, context=64, base=base)
        single = measure_perplexity(model, TEXT * 6, context=64, base=base, one_by_one=True)
    assert batch.divergence is not None
    assert single.divergence is not None
    assert batch.divergence.kl_max < 1e-7
    assert single.divergence.kl_mean > 1e-4


def test_every_output_says_lossy(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT * 6)
    tokens = tmp_path / "tokens"
    tokens.write_text("1 2 3 4")
    lossy = ("--lossy-routing", "0.8", "--memory", "min")
    commands: list[tuple[str | Path, ...]] = [
        ("run", demo, "-p", "Once", "-n", "8"),
        ("bench", demo, "-p", "0", "-n", "8", "-r", "1"),
        ("perplexity", demo, "--file", text, "-c", "64"),
        ("logits", demo, "--tokens", tokens, "--out", tmp_path / "logits.npy"),
        ("trace", demo, "-p", "Once", "-n", "8", "-o", tmp_path / "trace.csv"),
    ]
    for command in commands:
        result = edgemoe(*command, *lossy)
        assert result.returncode == 0, result.stderr
        assert b"lossy: routing kept" in result.stdout + result.stderr, command[0]
        exact = edgemoe(*command)
        assert b"lossy:" not in exact.stdout + exact.stderr, command[0]
    assert b"# lossy_routing=" not in (tmp_path / "trace.csv").read_bytes()
    assert edgemoe(*commands[-1], *lossy).returncode == 0
    assert b"# lossy_routing=0.8\n" in (tmp_path / "trace.csv").read_bytes()
    for command in commands[:3]:
        report = json.loads(edgemoe(*command, *lossy, "--json").stdout)
        found = report["results"][0] if command[0] == "bench" else report
        assert found["lossy_routing"]["target"] == 0.8
        assert found["lossy_routing"]["choices"] > 0


def test_targets_and_modes_that_make_no_sense(fails: Callable[..., str], demo: str) -> None:
    for agreement in ("0.4", "1", "1.5", "x"):
        fails(2, "run", demo, "-p", "x", "--lossy-routing", agreement)
    for value in (0.4, 1.0, float("nan")):
        with pytest.raises(ArgumentError, match="lossy_routing"):
            Model.load(demo, lossy_routing=value)
    for mode in ("on-demand", "unbuffered", "layer-by-layer"):
        message = fails(1, "run", demo, "-p", "x", "--mode", mode, "--lossy-routing", "0.9")
        assert f"mode {mode}" in message


def test_recorded_routing_has_no_scores(
    edgemoe: Run, fails: Callable[..., str], demo: str, tmp_path: Path
) -> None:
    route = tmp_path / "route.csv"
    assert edgemoe("trace", demo, "-p", "x", "-n", "4", "-o", route).returncode == 0
    options = ("-p", "0", "-n", "4", "--routing", route, "--lossy-routing", "0.9")
    assert "scores" in fails(1, "bench", demo, *options)


def test_what_a_lossy_run_learns_is_not_kept(demo: str, tmp_path: Path) -> None:
    with half_resident(demo, lossy_routing=0.8, cache_folder=str(tmp_path)) as model:
        model.logits(TOKENS, one_by_one=True)
    assert list(tmp_path.iterdir()) == []
