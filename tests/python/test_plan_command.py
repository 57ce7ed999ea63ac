"""`edgemoe profile`, `plan` and `pack` one after another, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from edgemoe.bitwidth.plan_file import load_plan

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def profiled(demo: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small profile of the bundled model, as a command makes it."""
    from edgemoe.cli import main

    folder = tmp_path_factory.mktemp("profiled")
    tokens = folder / "tokens"
    tokens.write_text(" ".join(map(str, np.random.default_rng(2).integers(3, 4096, 2048))))
    arguments = ["profile", demo, "--tokens", str(tokens), "-o", str(folder / "p"), "--rows", "8"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--context", "128"])
    assert not ended.value.code
    return folder / "p"


def test_a_size_is_kept_and_the_loss_is_measured(
    edgemoe: Run, demo: str, profiled: Path, tmp_path: Path
) -> None:
    plan_path, packed = tmp_path / "plan.json", tmp_path / "packed.gguf"
    result = edgemoe("plan", profiled, "--bits", "3.3", "-o", plan_path, "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert 3.25 < figures["predicted"]["bits_per_weight"] <= 3.3
    assert figures["measured"]["kl_mean"] > 0
    curve = figures["predicted"]["curve"]
    assert all(low[1] >= high[1] for low, high in zip(curve, curve[1:], strict=False))
    result = edgemoe("pack", demo, "--plan", plan_path, "-o", packed, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["bits_per_weight"]["expert"] <= 3.3
    assert edgemoe("inspect", packed, "--verify").returncode == 0
    assert edgemoe("run", packed, "-p", "Once", "-n", "4", "--temp", "0").returncode == 0


def test_a_loss_is_held(edgemoe: Run, profiled: Path, tmp_path: Path) -> None:
    result = edgemoe("plan", profiled, "--max-loss", "20%", "-o", tmp_path / "p.json", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["measured"]["loss"] <= 0.2


def test_plans_without_measuring_say_so(edgemoe: Run, profiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = edgemoe("plan", profiled, "--bits", "3", "--no-measure", "-o", out)
    assert result.returncode == 0, result.stderr
    assert b"nothing was measured" in result.stdout
    assert load_plan(str(out)).measured == {}
    result = edgemoe("plan", profiled, "--table", "--no-measure")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 13


def test_the_paper_and_one_type_for_all(edgemoe: Run, profiled: Path, tmp_path: Path) -> None:
    for more in (("--method", "paper", "--bits", "3"), ("--method", "uniform", "--type", "Q3_K")):
        out = tmp_path / "plan.json"
        result = edgemoe("plan", profiled, *more, "--no-measure", "-o", out)
        assert result.returncode == 0, result.stderr
        assert load_plan(str(out)).method == more[1]


def test_a_plan_for_a_memory_predicts_its_speed(
    edgemoe: Run, profiled: Path, tmp_path: Path
) -> None:
    result = edgemoe(
        *("plan", profiled, "--for-memory", "128MiB", "--max-loss", "20%"),
        *("--storage-speed", "50MB", "-o", tmp_path / "plan.json"),
    )
    assert result.returncode == 0, result.stderr
    assert b"tokens per second" in result.stdout


def test_what_cannot_be_planned_is_one_line(
    fails: Fails, profiled: Path, demo: str, tmp_path: Path
) -> None:
    out = tmp_path / "plan.json"
    assert "-o PLAN" in fails(2, "plan", profiled, "--bits", "3")
    assert "one of" in fails(2, "plan", profiled, "--bits", "3", "--size", "1GiB", "-o", out)
    assert "percent" in fails(2, "plan", profiled, "--max-loss", "much", "-o", out)
    assert "go together" in fails(2, "plan", profiled, "--method", "uniform", "-o", out)
    small = ("--no-measure", "-o", out)
    assert "at least" in fails(1, "plan", profiled, "--bits", "1.5", *small)
    assert "--dense" in fails(1, "plan", profiled, "--size", "1MB", *small)
    assert "--model" in fails(1, "plan", profiled, "--bits", "3", "--model", out, *small)
    assert fails(1, "plan", demo, "--bits", "3", *small)
    assert not out.exists()
