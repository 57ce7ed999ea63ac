"""The command line as a user meets it: output, exit status, errors of one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from edgemoe.options import EVICTION_POLICIES

PROMPT = "There was once a king who"
Fails = Callable[..., str]


def as_json(edgemoe: Run, *arguments: str | Path, stdin: bytes = b"") -> dict:
    result = edgemoe(*arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(b"\n") == 1
    return json.loads(result.stdout)


def test_run_without_a_model_streams_the_demo(edgemoe: Run) -> None:
    result = edgemoe("run", "-n", "20", "--seed", "1")
    assert result.returncode == 0
    assert result.stdout.startswith(PROMPT.encode())
    line = result.stderr.decode().strip()
    for part in ("tok/s", "hits", "read per token", "memory used"):
        assert part in line
    assert "\n" not in line


def test_run_as_json_has_the_promised_keys(edgemoe: Run, demo: str) -> None:
    report = as_json(edgemoe, "run", demo, "-p", PROMPT, "-n", "5", "--temp", "0", "--json")
    assert {"text", "tokens", "tokens_per_second", "hit_rate", "bytes_read_per_token"} <= set(
        report
    )
    assert report["memory"]["peak_bytes"] <= report["memory"]["budget_bytes"]
    assert report["tokens"] == 5


def test_run_demo_keeps_to_a_budget_below_its_experts(edgemoe: Run) -> None:
    report = as_json(edgemoe, "run", "-n", "40", "--json")
    assert report["hit_rate"] < 1
    assert report["bytes_read_per_token"] > 0
    assert report["memory"]["peak_bytes"] <= report["memory"]["budget_bytes"]


def test_inspect_plans_without_loading(edgemoe: Run, demo: str) -> None:
    report = as_json(edgemoe, "inspect", demo, "--memory", "min", "--json")
    assert report["model"]["architecture"] == "qwen3moe"
    assert report["experts"][0]["bits_per_weight"] == pytest.approx(4.5)
    assert report["memory_plan"]["least_bytes"] == report["memory_plan"]["budget_bytes"]
    assert edgemoe("inspect", demo).returncode == 0


def test_logits_are_written_as_npy(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("1 20 300\n4000 5")
    found = []
    for name, options in (("a", []), ("b", ["--one-by-one"])):
        out = tmp_path / name
        result = edgemoe("logits", demo, "--tokens", ids, "--out", out, *options)
        assert result.returncode == 0, result.stderr
        assert result.stdout == b""
        found.append(np.load(out))
    assert found[0].shape == (5, 4096)
    assert found[0].dtype == np.float32
    assert np.array_equal(*found)


def test_tokenize_reads_a_file_or_standard_input(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Once upon a time")
    from_file = as_json(edgemoe, "tokenize", demo, "--file", text, "--json")["ids"]
    from_stdin = as_json(edgemoe, "tokenize", demo, "--json", stdin=text.read_bytes())["ids"]
    bare = as_json(edgemoe, "tokenize", demo, "--file", text, "--json", "--no-bos")["ids"]
    assert from_file == from_stdin == [1, *bare]


def test_perplexity_and_its_divergence_from_itself(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("The King's daughter went into the forest and sat down by the cool well. " * 20)
    base = tmp_path / "base"
    common = ("perplexity", demo, "--file", text, "-c", "64", "--json")
    plain = as_json(edgemoe, *common, "--save-kl-base", base)
    assert plain["tokens"] > 100
    assert plain["perplexity"] == pytest.approx(np.exp(plain["nll"]))
    compared = as_json(edgemoe, *common, "--kl-base", base)
    assert compared["perplexity"] == plain["perplexity"]
    assert abs(compared["kl_mean"]) < 1e-3
    assert compared["same_top1"] > 0.99
    assert compared["perplexity_ratio"] == pytest.approx(1, abs=1e-3)


def test_bench_has_the_promised_keys(edgemoe: Run, demo: str) -> None:
    report = as_json(
        edgemoe, "bench", demo, "-p", "16", "-n", "8", "-r", "1", "--memory", "min", "--json"
    )
    assert [result["test"] for result in report["results"]] == ["pp16", "tg8"]
    for result in report["results"]:
        assert set(result["tokens_per_second"]) == {"median", "min", "max"}
        assert set(result["limit"]) == {"storage", "memory", "compute"}
        assert result["of_limit"] > 0
    memory = report["memory"]
    assert 0 < memory["resident_bytes"] <= memory["peak_bytes"] <= memory["budget_bytes"]
    assert {"mode", "level", "threads"} <= set(report)


def test_bench_measures_at_a_depth(edgemoe: Run, demo: str) -> None:
    options = ["-p", "8", "-n", "4", "-r", "1", "--context", "64", "--json"]
    report = as_json(edgemoe, "bench", demo, "--depth", "40", *options)
    assert [result["test"] for result in report["results"]] == ["pp8@d40", "tg4@d40"]


def test_bench_refuses_a_depth_beyond_the_context(fails: Fails, demo: str) -> None:
    options = ["-p", "8", "-n", "0", "--context", "64"]
    assert "8 after 57" in fails(1, "bench", demo, "--depth", "57", *options)


def test_doctor_reports(edgemoe: Run, demo: str) -> None:
    report = as_json(edgemoe, "doctor", demo, "--json")
    assert report["levels"][0] == "scalar"
    assert report["storage"]["bytes_per_second"]["pread"] > 0
    assert report["storage"]["file_system"]
    assert report["memory"]["total_bytes"] >= report["memory"]["available_bytes"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no file system in memory")
def test_doctor_tells_memory_from_storage(edgemoe: Run) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(1 << 20))
        file.flush()
        output = edgemoe("doctor", file.name).stdout.decode()
    assert "this is memory, not storage" in output


def test_doctor_reports_without_paths_and_names(edgemoe: Run, demo: str) -> None:
    text = edgemoe("doctor", demo, "--report").stdout.decode()
    assert "demo model, memory min:" in text
    for word in (demo, str(Path(demo).parent), os.uname().nodename, os.path.expanduser("~")):
        assert len(word) < 3 or word not in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(edgemoe: Run, shell: str) -> None:
    assert b"_EDGEMOE_COMPLETE" in edgemoe("completion", shell).stdout


def test_chat_without_a_template(fails: Fails, demo: str) -> None:
    assert "template" in fails(1, "chat", demo, stdin=b"Hello\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--memory", "lots"],
        ["run", "--temp", "-1"],
        ["run", "--temp", "warm"],
        ["run", "--no-such-option"],
        ["run", "--io", "telepathy"],
        ["run", "--logit-bias", "x"],
        ["no-such-command"],
        ["tokenize"],
        ["logits", "x.gguf", "--out", "y"],
        ["run", "x.gguf"],
        ["run", "-p", b"\xff\xfe"],
    ],
)
def test_bad_usage_is_status_2(fails: Fails, arguments: list[str | bytes]) -> None:
    fails(2, *arguments)


def test_files_that_are_no_models(fails: Fails, demo: str, tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("Dear diary")
    empty = tmp_path / "empty.gguf"
    empty.touch()
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(Path(demo).read_bytes()[:5_000_000])
    for command in (["run", "-p", "x"], ["inspect"]):
        assert "No such file" in fails(1, *command, tmp_path / "missing.gguf")
        assert "director" in fails(1, *command, tmp_path)
        assert "no GGUF file" in fails(1, *command, text)
        fails(1, *command, empty)
        assert "truncated" in fails(1, *command, truncated)


def test_a_budget_that_is_too_small(fails: Fails, demo: str) -> None:
    message = fails(1, "run", demo, "-p", "x", "--memory", "5MiB")
    assert "least" in message


def test_text_that_is_not_utf_8(fails: Fails, demo: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"caf\xe9")
    assert "UTF-8" in fails(1, "tokenize", demo, "--file", text)
    assert "UTF-8" in fails(1, "tokenize", demo, stdin=b"caf\xe9")
    assert "UTF-8" in fails(1, "run", demo, "-f", text)


def test_a_disk_error_in_the_middle_of_decoding(fails: Fails, demo: str) -> None:
    io = "simulated:eio_after=400"
    common = ("run", demo, "-p", PROMPT, "-n", "200", "--memory", "min", "--temp", "0")
    message = fails(1, *common, "--io", io)
    assert "layer" in message
    assert "offset" in message


@pytest.mark.parametrize("policy", EVICTION_POLICIES)
def test_every_eviction_policy_runs(edgemoe: Run, demo: str, policy: str) -> None:
    result = edgemoe("run", demo, "-p", PROMPT, "-n", "4", "--eviction", policy, "--memory", "min")
    assert result.returncode == 0


def test_ctrl_c_stops_between_tokens() -> None:
    # Never at its end before the signal comes, however busy the machine is.
    slow = ["--io", "simulated:latency=30000", "--temp", "0", "-n", "-1"]
    command = [sys.executable, "-m", "edgemoe", "run", "--memory", "min", *slow]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tempfile.gettempdir()
    )
    assert process.stdout is not None
    process.stdout.read(len(PROMPT) + 5)  # it is telling
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == b"edgemoe: interrupted"
    assert time.monotonic() - start < 30


def test_output_that_nobody_reads(demo: str) -> None:
    command = f"'{sys.executable}' -m edgemoe run '{demo}' -p x -n 50 | true"
    result = subprocess.run(
        command, shell=True, capture_output=True, check=False, cwd=tempfile.gettempdir()
    )
    assert b"Traceback" not in result.stderr


def test_the_benchmark_program_explains_itself() -> None:
    program = Path(sysconfig.get_path("scripts"), "edgemoe-bench")
    for arguments in ([], ["--help"], ["decode", "--help"], ["decode", "-h"]):
        result = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
        assert "usage: edgemoe-bench" in (result.stdout if arguments else result.stderr)
        assert result.returncode == (0 if arguments else 2)
