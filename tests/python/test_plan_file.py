"""Plans: what is written is read again, and every mistake is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgemoe.bitwidth.plan_file import (
    Plan,
    PlanModel,
    PlanProfile,
    file_checksum,
    load_plan,
    plan_to_json,
    profile_path,
    save_plan,
    with_profile,
)
from edgemoe.errors import EdgemoeError, ModelFormatError, ReadError, UnsupportedModelError


def example() -> Plan:
    experts = (("Q4_K", "Q4_K", "Q3_K"), ("Q2_K", "Q2_K", "IQ2_XXS"))
    return Plan(
        model=PlanModel("qwen3moe", "tiny ä", 2, 2),
        method="allocate",
        experts=(None, experts),
        dense={"output.weight": "Q6_K"},
        target={"max_loss": 0.02},
        profile=PlanProfile("profiles/tales.npz", "0123456789abcdef"),
        predicted={"loss": 0.015, "bits": 3.25},
        measured={"by_domain": {"tales": [0.01, 0.02]}},
        reasons=({"layer": 1, "expert": 1, "why": "rarely used"},),
    )


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    save_plan(example(), path)
    assert load_plan(path) == example()
    assert json.loads(Path(path).read_text()) == plan_to_json(example())


def test_the_summary_has_no_tables() -> None:
    summary = example().summary()
    assert summary["method"] == "allocate"
    assert not {"experts", "dense", "reasons"} & summary.keys()


def test_the_profile_is_found_from_the_plan(tmp_path: Path) -> None:
    path = str(tmp_path / "plans" / "plan.json")
    (tmp_path / "p.npz").write_bytes(b"profile")
    plan = with_profile(example(), path, str(tmp_path / "p.npz"))
    assert plan.profile == PlanProfile("../p.npz", file_checksum(str(tmp_path / "p.npz")))
    assert profile_path(plan, path) == str(tmp_path / "p.npz")


def broken(**changes: Any) -> dict[str, Any]:
    return {**plan_to_json(example()), **changes}


WRONG = [
    ([], "the plan is not"),
    (broken(format="plan"), "format is 'plan'"),
    (broken(version="1"), "version is '1'"),
    (broken(method="best"), "method is 'best'"),
    (broken(surprise=1), "'surprise' is not a key"),
    ({k: v for k, v in broken().items() if k != "dense"}, "dense is missing"),
    (broken(model={"architecture": "x"}), "model.name is missing"),
    (broken(experts=[None]), "experts is not a list of 2 layers"),
    (broken(experts=[None, []]), "experts[1] is neither"),
    (broken(experts=[None, [["Q4_K", "Q4_K"]] * 2]), "experts[1][0] is not the list"),
    (broken(experts=[None, [["Q4_K"] * 3, ["Q4_K", "Q4_K", "Q9"]]]), "experts[1][1][2] is 'Q9'"),
    (broken(experts=[None, [["Q4_K"] * 3, ["Q4_K", [], "Q4_K"]]]), "experts[1][1][1] is []"),
    (broken(dense={"output.weight": 4}), "dense['output.weight'] is 4"),
    (broken(profile={"path": "", "checksum": ""}), "profile.path is empty"),
    (broken(reasons={}), "reasons is not a list"),
    (broken(target=3), "target is not an object"),
    (broken(measured={"a": float("nan")}), "measured.a is not a finite number"),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=[m for _, m in WRONG])
def test_mistakes_are_named(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ModelFormatError) as caught:
        load_plan(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'{"format": 1, "format": 2}',
        b"[" * 100_000,
        b'{"version": ' + b"9" * 5000 + b"}",
        b"null",
    ],
    ids=range(7),
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match="plan.json"):
        load_plan(str(path))


def test_newer_versions_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(ReadError):
        load_plan(str(path))
    path.write_text(json.dumps(broken(version=2)))
    with pytest.raises(UnsupportedModelError, match="version is 2"):
        load_plan(str(path))


def test_a_wrong_plan_is_not_written(tmp_path: Path) -> None:
    plan = Plan(PlanModel("x", "", 1, 1), "uniform", ((("Q4_K", "Q4_K", "Q5"),),))
    with pytest.raises(EdgemoeError, match=r"experts\[0\]\[0\]\[2\]"):
        save_plan(plan, str(tmp_path / "plan.json"))
    assert not list(tmp_path.iterdir())
