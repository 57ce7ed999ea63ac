"""bench/paper_tables.py: its arithmetic with runs that are made up, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

# Tokens per second of each system, in two rounds.
SPEEDS = {
    "IO-EXP": (1.0, 3.0),
    "IO-QEXP": (4.0, 4.0),
    "STI": (3.0, 5.0),
    "preload": (5.0, 5.0),
    "edgemoe": (6.0, 10.0),
}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("paper_tables")


def measured(tables: ModuleType, failing: str = "") -> tuple[object, list[str]]:
    runs = {name: iter(speeds) for name, speeds in SPEEDS.items()}
    names = {system: name for name, system in tables.SYSTEMS.items()}
    tries: list[str] = []

    def run(place: object, system: object) -> object:
        name = names[system]
        tries.append(name)
        if name == failing:
            raise tables.RunError("a memory budget of 1 MiB is too small")
        return tables.Figures(next(runs[name]), 1 << 30, 0.5, 1e6, 0.9, 44e6)

    result = tables.Measurements(resident_bytes={False: 4 << 30, True: 2 << 30})
    place = tables.Place("pi4-sd", 2 << 30)
    notes: list[str] = []
    tables.measure(result, [place], 2, run, notes.append)
    assert len(notes) == len(tries)
    assert all("\n" not in note for note in notes)
    return result, tries


def test_rounds_run_every_system_by_turns(tables: ModuleType) -> None:
    _, tries = measured(tables)
    assert tries == [*SPEEDS, *SPEEDS]


def test_ablation_compares_medians_with_the_base(tables: ModuleType) -> None:
    rows = list(tables.ablation_rows(measured(tables)[0]))
    assert [row["step"] for row in rows] == ["base", "+ bits", "+ preload", "+ buffer"]
    assert [row["tokens_per_second"] for row in rows] == [2.0, 4.0, 5.0, 8.0]
    assert [row["over_base"] for row in rows] == [1.0, 2.0, 2.5, 4.0]


def test_speed_over_each_baseline(tables: ModuleType) -> None:
    (row,) = tables.speed_rows(measured(tables)[0])
    assert row["over_IO-EXP"] == 4.0
    assert row["over_IO-QEXP"] == 2.0
    assert row["over_STI"] == 2.0


def test_memory_is_compared_with_the_model_of_as_many_bits(tables: ModuleType) -> None:
    rows = {row["system"]: row for row in tables.memory_rows(measured(tables)[0])}
    assert rows["IO-EXP"]["less_memory"] == 4.0
    assert rows["edgemoe"]["less_memory"] == 2.0


def test_a_system_that_fails_is_left_out_and_said(tables: ModuleType) -> None:
    result, tries = measured(tables, failing="IO-EXP")
    assert tries.count("IO-EXP") == 1
    assert tries.count("edgemoe") == 2
    (row,) = tables.speed_rows(result)
    assert row["over_IO-EXP"] is None
    assert row["over_STI"] == 2.0
    report = json.loads(json.dumps(tables.as_json(result)))
    assert "too small" in report["failures"][0]["reason"]
    assert len(report["runs"]) == 8


def test_tables_are_markdown(tables: ModuleType) -> None:
    result, _ = measured(tables, failing="STI")
    for title, rows in tables.TABLES.values():
        lines = tables.markdown(title, list(rows(result))).splitlines()[2:]
        assert len({line.count("|") for line in lines}) == 1
    text = tables.markdown("Speed", list(tables.speed_rows(result)))
    assert "| Raspberry Pi 4, SD card | 2.00 GiB | 8.000 | 4.00x | 2.00x | - | 44 MB/s |" in text


def test_figures_are_those_that_bench_prints(tables: ModuleType) -> None:
    result = {
        "tokens_per_second": {"median": 2.5, "min": 1, "max": 3},
        "hit_rate": 0.25,
        "bytes_read_per_token": 1000,
        "of_limit": 0.75,
    }
    report = {
        "results": [result],
        "memory": {"budget_bytes": 9, "peak_bytes": 8, "resident_bytes": 7},
        "bandwidth": {"memory": 1e10, "storage": 4e7},
    }
    assert tables.figures_of(report) == tables.Figures(2.5, 7, 0.25, 1000, 0.75, 4e7)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "paper_tables.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_bad_arguments(demo: str) -> None:
    models = ("--model", demo, "--low-bit-model", demo, "--edgemoe", "edgemoe")
    assert "pi5-sd" in run_script(*models, "--devices", "abacus").stderr
    assert "not a size" in run_script(*models, "--memory", "xGiB").stderr
    assert "1 or more" in run_script(*models, "--tokens", "0").stderr
    assert run_script("--model", demo).returncode == 2


def test_a_missing_program_is_an_error_of_one_line(demo: str) -> None:
    models = ("--model", demo, "--low-bit-model", demo, "--edgemoe", "no-such-edgemoe")
    result = run_script(*models)
    assert result.returncode == 1
    assert result.stderr.startswith("paper_tables.py: ")
    assert result.stderr.count("\n") == 1


def test_limits_need_root(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = importlib.import_module("limits")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(limits.LimitError, match="root"):
        limits.run_limited(["true"], limits.Limits(1 << 30))
