"""edgemoe replay and the traces that it reads: good ones, and every way of being bad."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from edgemoe.errors import ModelFormatError
from edgemoe.options import EVICTION_POLICIES
from edgemoe.traces import PREFILL, read_trace

LAYERS, EXPERTS, USED = 6, 16, 2
HEAD = (
    "# route_trace v1\n"
    f"# model=tiny.gguf arch=tiny n_layer={LAYERS} n_expert={EXPERTS} n_expert_used={USED}\n"
    "# layer=0 expert_bytes=1000 dense_bytes=7\n"
    "# layer=2 expert_bytes=3000 dense_bytes=7\n"
)
COLUMNS = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"
# Layer 1 has no experts.
MOE_LAYERS = [layer for layer in range(LAYERS) if layer != 1]
Fails = Callable[..., str]


def trace_text(tokens: int = 40, prompt: int = 5) -> str:
    chance = random.Random(3)
    rows = []

    def token(phase: int, step: int, layer: int) -> None:
        chosen = sorted({int(chance.triangular(0, EXPERTS, layer)) for _ in range(USED)})
        rows.extend(f"0,{phase},{step},{layer},{i},{e},0.5,1,0" for i, e in enumerate(chosen))

    for layer in MOE_LAYERS:
        for step in range(prompt):
            token(0, step, layer)
    for step in range(tokens):
        for layer in MOE_LAYERS:
            token(1, step, layer)
    return HEAD + COLUMNS + "\n".join(rows) + "\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.csv"
    path.write_text(trace_text())
    return path


def test_a_trace_says_what_its_model_is(trace: Path) -> None:
    read = read_trace(trace)
    assert (read.arch, read.num_layers, read.num_experts) == ("tiny", LAYERS, EXPERTS)
    assert read.all_experts == len(MOE_LAYERS) * EXPERTS
    assert read.mean_expert_bytes == 2000
    assert read.token is None


def test_without_a_header_the_data_say_it(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("expert,layer,step,phase,turn,token\n7,3,0,1,0,42\n2,3,0,1,0,42\n")
    read = read_trace(path)
    assert (read.num_layers, read.num_experts, read.num_used) == (4, 8, 2)
    assert (read.expert.tolist(), read.slot.tolist()) == ([7, 2], [0, 1])
    assert read.token is not None
    assert read.token.tolist() == [42, 42]
    assert read.mean_expert_bytes == 0


def test_replay_as_json_compares_policies_with_belady(edgemoe: Run, trace: Path) -> None:
    result = edgemoe("replay", trace, "--budgets", "10%,50%,10x,8KB,100%", "--json")
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)["traces"]
    assert [budget["slots"] for budget in report["budgets"]] == [8, 40, 10, 4, 80]
    assert set(report["policies"]) == set(EVICTION_POLICIES)
    for results in report["policies"].values():
        for one, best in zip(results, report["belady"], strict=True):
            assert one["prefill"]["demands"] == best["prefill"]["demands"]
            assert one["decode"]["demands"] == best["decode"]["demands"]
            assert one["hit_rate"] <= best["hit_rate"] + 1e-9
        assert results[-1]["evictions"] == 0
        assert results[-1]["hit_rate"] == report["belady"][-1]["hit_rate"]
    recall = report["predictor_recall"]
    assert 0 < recall["transitions"] <= recall["transitions_twice"] <= 1
    assert recall["token_table"] is None


def test_a_recorded_run_is_replayed_and_plotted(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    options = ("-p", "Once upon a time there was", "-n", "12", "--batch", "4")
    result = edgemoe("trace", demo, *options, "-o", path)
    assert result.returncode == 0, result.stderr
    result = edgemoe("replay", path, "--budgets", "10%,1MiB", "--json")
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)["traces"]
    recorded = read_trace(path)
    assert (recorded.phase == PREFILL).any()
    assert report["architecture"] == recorded.arch
    used = np.unique(recorded.layer).size * recorded.num_used
    for one in report["policies"]["layer-aware"]:
        assert one["decode"]["demands"] == 11 * used
    result = edgemoe("plot", path, "--terminal")
    assert result.returncode == 0, result.stderr
    assert b"layer" in result.stdout


def test_replay_prints_a_table_for_each_trace(edgemoe: Run, trace: Path) -> None:
    result = edgemoe("replay", trace, trace, "--policies", "lru,paper", "--budgets", "20%")
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode()
    assert text.count("tiny, 6 layers, 2 of 16 experts used") == 2
    for word in ("pool", "slots", "lru", "paper", "belady", "transitions"):
        assert word in text
    assert "fifo" not in text


def test_token_ids_are_used_where_a_trace_has_them(edgemoe: Run, tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    rows = [f"0,1,{step},0,{step % 5},{step % 5}" for step in range(50)]
    path.write_text("turn,phase,step,layer,expert,token\n" + "\n".join(rows))
    result = edgemoe("replay", path, "--json")
    (report,) = json.loads(result.stdout)["traces"]
    assert report["predictor_recall"]["token_table"] == pytest.approx(45 / 50)


ROW = "0,1,5,0,0,3,0.5,1,0\n"
BAD = {
    "fields": (ROW + "0,1,6,0,0\n", 7, "5 values for 9 columns"),
    "word": ("0,1,abc,0,0,3,0.5,1,0\n", 6, "step is 'abc', not a number"),
    "negative": ("0,1,-1,0,0,3,0.5,1,0\n", 6, "step is -1; a whole number"),
    "fraction": ("0,1,1.5,0,0,3,0.5,1,0\n", 6, "step is 1.5; a whole number"),
    "empty field": ("0,1,,0,0,3,0.5,1,0\n", 6, "step is ''"),
    "phase": ("0,2,5,0,0,3,0.5,1,0\n", 6, "phase is 2; a whole number up to 1"),
    "huge layer": ("0,1,5,99999999,0,3,0.5,1,0\n", 6, "layer is 1e+08; a whole number up to 4095"),
    "huge number": ("0,1," + "9" * 500 + ",0,0,3,0.5,1,0\n", 6, "step is not a finite number"),
    "layer": ("0,1,5,6,0,3,0.5,1,0\n", 6, "layer is 6; the header says n_layer=6"),
    "expert": ("0,1,5,0,0,16,0.5,1,0\n", 6, "expert is 16; the header says n_expert=16"),
    "step back": (ROW + "0,1,4,0,0,3,0.5,1,0\n", 7, "step 4 comes after step 5"),
    "prompt step back": (
        "0,0,5,0,0,3,0.5,1,0\n0,0,4,0,0,3,0.5,1,0\n",
        7,
        "step 4 comes after step 5",
    ),
    "layer back": (
        "0,1,5,2,0,3,0.5,1,0\n0,1,5,0,0,3,0.5,1,0\n",
        7,
        "layer 0 comes after layer 2 of the same step",
    ),
    "turn back": ("1,1,5,0,0,3,0.5,1,0\n" + ROW, 7, "turn 0 comes after turn 1"),
    "twice": (ROW + ROW, 7, "expert 3 is there twice"),
    "twice, apart": (
        ROW + "0,1,5,0,1,4,0.5,1,0\n0,1,5,0,2,3,0.5,1,0\n",
        8,
        "expert 3 is there twice",
    ),
    "long line": ("0" * 5000 + "\n", 6, "1 values for 9 columns"),
    "bytes": ("0,1,\udcff,0,0,3,0.5,1,0\n", 6, "this is not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, name: str) -> None:
    rows, line, problem = BAD[name]
    path = tmp_path / "bad.csv"
    path.write_bytes((HEAD + COLUMNS + rows).encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelFormatError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no column names"),
        (HEAD, "no column names"),
        (HEAD + COLUMNS, "no rows"),
        ("turn,step,layer\n0,0,0\n", ":1: column 'phase' is missing"),
        ("# n_layer=999999999999999999999999\n" + COLUMNS + ROW, ":1: n_layer=9999"),
        ("# n_expert=many\n" + COLUMNS + ROW, ":1: n_expert=many"),
        ("# layer=0 expert_bytes=-5\n" + COLUMNS + ROW, ":1: expert_bytes=-5"),
        ("turn,phase,step,layer,expert,token\n0,1,0,0,0,4294967295\n", ":2: token is 4.29497e+09"),
        ("\0\1\2" * 5000, ":1: this is not text"),
        (
            "turn,phase,step,layer,expert\n0,1,0,1023,4095\n",
            "1024 layers of 4096 experts; replay takes at most 262144",
        ),
        ("GGUF\n", ":1: column 'turn' is missing"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, fails: Fails, text: str, problem: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert problem in fails(1, "replay", path)


def test_files_that_cannot_be_read_are_errors_of_one_line(fails: Fails, tmp_path: Path) -> None:
    assert "No such file" in fails(1, "replay", tmp_path / "missing.csv")
    assert "directory" in fails(1, "replay", tmp_path)


def test_a_size_needs_to_know_how_large_experts_are(fails: Fails, tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("turn,phase,step,layer,expert\n0,1,0,0,0\n")
    assert "does not say how large experts are" in fails(1, "replay", path, "--budgets", "2GiB")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--budgets", "0%"],
        ["--budgets", "101%"],
        ["--budgets", "0x"],
        ["--budgets", "-5%"],
        ["--budgets", ""],
        ["--budgets", "5%,,10%"],
        ["--budgets", "much"],
        ["--budgets", "0GiB"],
        ["--policies", "random"],
        ["--policies", ""],
    ],
)
def test_bad_budgets_and_policies_are_bad_usage(
    fails: Fails, trace: Path, arguments: list[str]
) -> None:
    assert "--help" in fails(2, "replay", trace, *arguments)


def test_a_name_in_a_trace_does_not_reach_the_terminal_raw(edgemoe: Run, tmp_path: Path) -> None:
    path = tmp_path / "escape.csv"
    path.write_text(trace_text().replace("arch=tiny", "arch=\x1b[31mtiny"))
    result = edgemoe("replay", path)
    assert result.returncode == 0, result.stderr
    assert b"?[31mtiny" in result.stdout and b"\x1b" not in result.stdout


def test_ctrl_c_stops_a_replay(tmp_path: Path) -> None:
    chance = random.Random(1)
    rows = [f"0,1,{step},0,0,{chance.randrange(1 << 16)}" for step in range(60_000)]
    path = tmp_path / "long.csv"
    path.write_text("turn,phase,step,layer,slot,expert\n" + "\n".join(rows))
    # As a shell does: a test runner may have been started with the signal ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from edgemoe.cli import main\n"
        "print(flush=True); main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "replay", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tempfile.gettempdir(),
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(3)  # most likely it is counting by now
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.strip()) == (130, b"edgemoe: interrupted")
    assert time.monotonic() - start < 10


def test_replay_wants_a_trace(fails: Fails) -> None:
    assert "TRACE" in fails(2, "replay")
