"""The scripts that compare with peers, with programs that print whatever they like."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
RESULT = {
    "hit_rate": 1.0,
    "tokens_per_second": {"median": 20.0},
    "limit": {"storage": None, "memory": 25.0, "compute": 40.0},
}
UNLIMITED = {"storage": None, "memory": None, "compute": None}
OURS = json.dumps({"results": [RESULT]}).encode()
PREFILL: dict[str, Any] = {"n_prompt": 512, "n_gen": 0, "avg_ts": 40.0}
DECODE: dict[str, Any] = {"n_prompt": 0, "n_gen": 128, "avg_ts": 10.0}
STREAMED: dict[str, Any] = {"n_prompt": 0, "n_gen": 4, "avg_ts": 10.0}

GARBAGE = {
    "nothing": b"",
    "words": b"loading the model",
    "not UTF-8": b"\xff\xfe\x00",
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "an object": b"{}",
    "a number": b"1",
    "a list of numbers": b"[1, 2]",
}


def peer_garbage(good: dict[str, Any]) -> dict[str, bytes]:
    rates = {"x": "x", "zero": 0, "negative": -1, "null": None, "true": True, "nan": float("nan")}
    return {
        **GARBAGE,
        **{
            f"rate {name}": json.dumps([PREFILL, {**good, "avg_ts": rate}]).encode()
            for name, rate in rates.items()
        },
        "only prefill": json.dumps([PREFILL]).encode(),
    }


OUR_GARBAGE = {
    **GARBAGE,
    "no results": b'{"results": []}',
    "no limits": json.dumps({"results": [{**RESULT, "limit": {}}]}).encode(),
    "unlimited": json.dumps({"results": [{**RESULT, "limit": UNLIMITED}]}).encode(),
    "no rate": json.dumps({"results": [{**RESULT, "tokens_per_second": {"median": 0}}]}).encode(),
}


def program(folder: Path, name: str, output: bytes) -> str:
    """A program that prints that, whatever it is asked."""
    (folder / f"{name}.out").write_bytes(output)
    path = folder / name
    path.write_text(f"#!/bin/sh\nexec cat '{folder}/{name}.out'\n")
    path.chmod(0o755)
    return str(path)


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def compare_peers(tmp_path: Path, ours: bytes, peer: bytes) -> subprocess.CompletedProcess[str]:
    programs = ("--edgemoe-bench", program(tmp_path, "edgemoe-bench", ours))
    programs += ("--llama-bench", program(tmp_path, "llama-bench", peer))
    return run_script("compare_peers.py", "model.gguf", *programs, "--rounds", "2", "--json")


def test_rates_of_peers_are_compared(tmp_path: Path) -> None:
    result = compare_peers(tmp_path, OURS, json.dumps([PREFILL, DECODE]).encode())
    assert result.returncode == 0, result.stderr
    table = json.loads(result.stdout)
    assert table["pp512"]["edgemoe_to_best_peer"] == 0.5
    assert table["tg128"]["edgemoe_to_best_peer"] == 2.0
    assert table["tg128"]["limit"] == 25.0
    assert table["tg128"]["rates"]["llama.cpp"]["runs"] == [10.0, 10.0]


@pytest.mark.parametrize("name", peer_garbage(DECODE))
def test_a_peer_that_prints_garbage_is_left_out(tmp_path: Path, name: str) -> None:
    result = compare_peers(tmp_path, OURS, peer_garbage(DECODE)[name])
    assert result.returncode == 0, result.stderr
    assert "llama.cpp is left out: " in result.stderr
    assert "Traceback" not in result.stderr
    table = json.loads(result.stdout)
    for test in ("pp512", "tg128"):
        assert list(table[test]["rates"]) == ["edgemoe"]


@pytest.mark.parametrize("name", OUR_GARBAGE)
def test_garbage_of_our_own_program_is_an_error_of_one_line(tmp_path: Path, name: str) -> None:
    result = compare_peers(tmp_path, OUR_GARBAGE[name], b"[]")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert "edgemoe-bench" in result.stderr


@pytest.mark.parametrize(
    ("script", "option", "value"),
    [
        ("compare_peers.py", "--rounds", "0"),
        ("compare_peers.py", "--threads", "0"),
        ("compare_peers.py", "--depth", "-1"),
        ("compare_peers.py", "--prompt", "-1"),
        ("compare_peers.py", "--tokens", "many"),
        ("compare_streaming.py", "--rounds", "0"),
        ("compare_streaming.py", "--threads", "-1"),
        ("compare_streaming.py", "--tokens", "0"),
        ("compare_streaming.py", "--llama-tokens", "0"),
        ("compare_streaming.py", "--prompt", "-1"),
    ],
)
def test_numbers_that_nothing_can_be_measured_with(script: str, option: str, value: str) -> None:
    result = run_script(script, "model.gguf", "--llama-bench", "x", f"{option}={value}")
    assert result.returncode == 2
    assert option in result.stderr
    assert value in result.stderr


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """compare_streaming.py without control groups, which need root."""
    monkeypatch.syspath_prepend(str(BENCH))
    script = importlib.import_module("compare_streaming")
    output = importlib.import_module("program_output")
    monkeypatch.setattr(script, "run_limited", lambda command, _: output.run_program(command))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return script


def stream(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, ours: bytes, peer: bytes
) -> dict[str, list[float]]:
    program(folder, "edgemoe-bench", ours)
    words = ["compare_streaming.py", "model.gguf", "--rounds", "2"]
    words += ["--llama-bench", program(folder, "llama-bench", peer)]
    monkeypatch.setattr(sys, "argv", words)
    rates: dict[str, list[float]] = script.measure(script.parse_arguments())
    return rates


def test_streaming_rates_are_compared(
    streaming: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peer = json.dumps([STREAMED]).encode()
    rates = stream(streaming, monkeypatch, tmp_path, OURS, peer)
    assert rates == {"edgemoe": [20.0, 20.0], "llama.cpp": [10.0, 10.0]}


@pytest.mark.parametrize("name", peer_garbage(STREAMED))
def test_a_streaming_peer_that_prints_garbage_is_left_out(
    streaming: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    rates = stream(streaming, monkeypatch, tmp_path, OURS, peer_garbage(STREAMED)[name])
    assert rates == {"edgemoe": [20.0, 20.0]}
    assert "llama.cpp is left out: " in capfd.readouterr().err


@pytest.mark.parametrize("name", [*GARBAGE, "no results", "no rate"])
def test_streaming_garbage_of_our_own_program(
    streaming: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        stream(streaming, monkeypatch, tmp_path, OUR_GARBAGE[name], b"[]")
    message = str(stopped.value.code)
    assert "edgemoe-bench" in message
    assert "\n" not in message
