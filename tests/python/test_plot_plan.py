"""Pictures of plans."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from edgemoe.bitwidth.plan_file import Plan, PlanModel, save_plan
from edgemoe.plots import PlanPicture, plan_drawing, plan_text, to_png, to_svg

Fails = Callable[..., str]


def a_plan(path: Path, *, measured: bool = True) -> Path:
    experts = (None, (("Q4_K", "Q4_K", "Q3_K"), ("Q2_K", "IQ2_XXS", "Q2_K")))
    curve = [[2.0, 0.1], [3.0, 0.02], [4.5, 0.004]]
    plan = Plan(
        PlanModel("qwen3moe", "a model", 2, 2),
        "allocate",
        experts,
        predicted={"bits_per_weight": 3.3, "curve": curve},
        measured={"kl_mean": 0.015} if measured else {},
    )
    save_plan(plan, str(path))
    return path


def test_a_plan_is_drawn_with_its_curve(edgemoe: Run, tmp_path: Path) -> None:
    plan = a_plan(tmp_path / "plan.json")
    for name in ("p.svg", "p.png"):
        result = edgemoe("plot", plan, "-o", tmp_path / name)
        assert result.returncode == 0, result.stderr
    root = ElementTree.fromstring((tmp_path / "p.svg").read_text())
    texts = " ".join(one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "a model" in texts and "this plan, measured" in texts
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_on_the_terminal_has_a_digit_for_each_expert(edgemoe: Run, tmp_path: Path) -> None:
    result = edgemoe("plot", a_plan(tmp_path / "plan.json", measured=False), "--terminal")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.decode().splitlines()
    assert "   1  42" in lines
    assert any("not measured" in line for line in lines)


def test_what_is_no_plan_is_refused(fails: Fails, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert "format" in fails(1, "plot", broken, "--terminal")
    plan = a_plan(tmp_path / "plan.json")
    assert "timeline" in fails(2, "plot", plan, plan, "--terminal")


@pytest.mark.parametrize(
    ("part", "value", "place"),
    [
        ("predicted", {"curve": [[1e308, 0.1], [2.0, 0.2]]}, "predicted.curve[0][0]"),
        ("predicted", {"curve": [[1.0, 1e308], [2.0, 0.2]]}, "predicted.curve[0][1]"),
        ("predicted", {"curve": [[1.0, "x"]]}, "predicted.curve[0][1]"),
        ("predicted", {"curve": [1.0, 2.0]}, "predicted.curve[0]"),
        ("predicted", {"bits_per_weight": "many"}, "predicted.bits_per_weight"),
        ("measured", {"kl_mean": 1e308}, "measured.kl_mean"),
    ],
)
def test_numbers_that_cannot_be_drawn_are_named(
    fails: Fails, tmp_path: Path, part: str, value: object, place: str
) -> None:
    plan = a_plan(tmp_path / "plan.json")
    plan.write_text(json.dumps({**json.loads(plan.read_text()), part: value}))
    assert f"{plan}: {place} is no " in fails(1, "plot", plan, "-o", tmp_path / "p.svg")


def test_divergences_of_nothing_have_no_curve(edgemoe: Run, tmp_path: Path) -> None:
    plan = a_plan(tmp_path / "plan.json")
    predicted = {"curve": [[2.0, 5e-324], [3.0, 0.0]]}
    changes = {"predicted": predicted, "measured": {"kl_mean": -1e-9}}
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **changes}))
    result = edgemoe("plot", plan, "-o", tmp_path / "p.svg")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("experts", [1, 16, 700])
def test_pictures_of_any_size_can_be_drawn(experts: int) -> None:
    bits = 2 + np.random.default_rng(1).random((3, experts)) * 6
    picture = PlanPicture("t", [0, 2, 5], bits, [(2.0, 0.5)], (3.0, None))
    drawing = plan_drawing(picture)
    assert "<svg" in to_svg(drawing) and to_png(drawing)
    assert plan_text(picture).count("\n") >= 5
