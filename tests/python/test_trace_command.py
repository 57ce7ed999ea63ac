"""edgemoe trace, and bench with the routing of a trace, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import Run

from edgemoe import ArgumentError, Model, ReadError
from edgemoe.options import LoadOptions
from edgemoe.traces import (
    DECODE,
    PREFILL,
    RouteTrace,
    Timeline,
    read_timeline,
    read_trace,
    uniform_script,
)

PROMPT = "There was once a king who"
Fails = Callable[..., str]
LAYERS, USED, DECODED = 6, 2, 11


def record(
    edgemoe: Run, demo: str, folder: Path, *options: str, name: str = "trace"
) -> tuple[RouteTrace, Timeline]:
    routing, times = folder / f"{name}.csv", folder / f"{name}.times.csv"
    outputs = ("-o", routing, "--timeline", times)
    result = edgemoe("trace", demo, "-p", PROMPT, "-n", str(DECODED + 1), *outputs, *options)
    assert result.returncode == 0, result.stderr
    assert not list(folder.glob(".*")), "a temporary file was left"
    return read_trace(routing), read_timeline(times)


def test_a_recorded_trace_has_a_row_for_every_expert(
    edgemoe: Run, demo: str, tmp_path: Path
) -> None:
    trace, timeline = record(edgemoe, demo, tmp_path, "--memory", "min")
    with Model.load(demo, memory="min") as model:
        prompt = len(model.tokenize(PROMPT))
    assert len(trace.step) == (prompt + DECODED) * LAYERS * USED
    assert (trace.num_layers, trace.num_experts, trace.num_used) == (LAYERS, 16, USED)
    assert (trace.arch, trace.model) == ("qwen3moe", Path(demo).name)
    assert np.array_equal(np.unique(trace.step), np.arange(prompt + DECODED))
    assert (trace.phase == np.where(trace.step < prompt, PREFILL, DECODE)).all()
    assert trace.weight is not None
    sums = np.bincount(trace.step * LAYERS + trace.layer, weights=trace.weight)
    assert sums == pytest.approx(1, abs=1e-4)
    # One prefill step, then a token a step, with every layer in each.
    assert len(timeline.step) == (1 + DECODED) * LAYERS
    assert timeline.tokens.tolist() == [prompt] * LAYERS + [1] * LAYERS * DECODED
    assert timeline.compute_seconds.min() > 0


def test_the_routing_is_the_same_whatever_the_budget(
    edgemoe: Run, demo: str, tmp_path: Path
) -> None:
    small, _ = record(edgemoe, demo, tmp_path, "--memory", "min", "--batch", "3", name="small")
    large, _ = record(edgemoe, demo, tmp_path, "--memory", "1GiB", name="large")
    for trace in (small, large):
        assert set(trace.layer_expert_bytes.values()) == {110592}
    order = [np.lexsort((t.slot, t.layer, t.step)) for t in (small, large)]
    for name in ("phase", "step", "layer", "slot", "expert", "weight"):
        a, b = (getattr(t, name)[o] for t, o in zip((small, large), order, strict=True))
        assert np.array_equal(a, b), name


def test_residency_agrees_with_the_counters_of_the_store(
    edgemoe: Run, demo: str, tmp_path: Path
) -> None:
    # What is read before its layer asks for it is in no row.
    options = ("--memory", "1GiB", "--preload", "none")
    trace, timeline = record(edgemoe, demo, tmp_path, *options)
    assert trace.residency is not None
    assert trace.expert_bytes is not None
    decode = trace.phase == DECODE
    hits = timeline.hits[timeline.phase == DECODE].sum()
    assert trace.residency[decode].sum() == hits > 0
    assert timeline.demands[timeline.phase == DECODE].sum() == decode.sum()
    # With room for all, every expert is read once and in one row.
    assert np.count_nonzero(trace.expert_bytes) == len(np.unique(trace.layer * 16 + trace.expert))
    assert trace.expert_bytes.sum() == np.count_nonzero(trace.expert_bytes) * 110592
    assert timeline.bytes_read.sum() >= trace.expert_bytes.sum()
    assert not trace.expert_bytes[trace.residency == 1].any()


def test_recording_is_off_unless_asked_for_and_is_planned_memory(demo: str) -> None:
    events = []
    with Model(demo, LoadOptions(memory="min", trace=True)) as model:
        model.record(lambda phase, event: events.append((phase, len(event["routing"]))))
        list(model.generate(PROMPT * 8, max_tokens=5, temperature=0))
        traced = model.memory_plan()["scratch_bytes"]
    with Model(demo, LoadOptions(memory="min")) as model:
        assert model.memory_plan()["scratch_bytes"] < traced
        with pytest.raises(ArgumentError, match="records nothing"):
            model.record(lambda phase, event: None)
    assert [count for phase, count in events if phase == DECODE] == [LAYERS * USED] * 4


def dense_model(path: Path) -> Path:
    """A llama without experts; only its structure is looked at."""
    width, vocabulary = 64, 32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    writer.add_vocab_size(vocabulary)
    square = [f"blk.0.{name}.weight" for name in ("attn_q", "attn_k", "attn_v", "attn_output")]
    square += [f"blk.0.{name}.weight" for name in ("ffn_gate", "ffn_up", "ffn_down")]
    for name in square:
        writer.add_tensor(name, np.zeros((width, width), np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.zeros(width, np.float32))
    writer.add_tensor("token_embd.weight", np.zeros((vocabulary, width), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_model_without_experts_is_refused(fails: Fails, tmp_path: Path) -> None:
    model = dense_model(tmp_path / "dense.gguf")
    out = tmp_path / "out.csv"
    assert "no experts" in fails(1, "trace", model, "-p", "x", "-o", out)
    routed = tmp_path / "t.csv"
    routed.write_text("turn,phase,step,layer,slot,expert\n0,0,0,0,0,0\n")
    assert "no experts" in fails(1, "bench", model, "--routing", routed)
    assert not out.exists()


def test_a_trace_that_fails_leaves_the_old_file(fails: Fails, demo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    options = ("--memory", "min", "--io", "simulated:eio_after=60")
    assert "layer" in fails(1, "trace", demo, "-p", PROMPT, "-n", "100", "-o", out, *options)
    assert out.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_trace_goes_through_pipes(demo: str, tmp_path: Path) -> None:
    trace = f"'{sys.executable}' -m edgemoe trace '{demo}' --memory min -p x -n 3"
    times = tmp_path / "times.csv"
    for command in (
        f"{trace} -o /dev/stdout --timeline {times} | cat > {tmp_path}/a.csv",
        f"exec 3> >(cat > {tmp_path}/b.csv); {trace} -o /dev/fd/3 || exit 1; exec 3>&-; wait $!",
    ):
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            capture_output=True,
            cwd=tempfile.gettempdir(),
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr
    assert len(read_timeline(times).step) > 0
    for name in ("a.csv", "b.csv"):
        assert len(read_trace(tmp_path / name).step) > 0


def test_bad_usage_of_trace(fails: Fails, demo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert "prompt" in fails(2, "trace", demo, "-o", out)
    fails(2, "trace", demo, "-p", "x", "-f", "y", "-o", out)
    fails(2, "trace", demo, "-p", "x")
    fails(2, "trace", demo, "-p", "x", "-n", "0", "-o", out)
    assert "No such file" in fails(1, "trace", demo, "-p", "x", "-o", tmp_path / "a/b.csv")
    assert "UTF-8" in fails(2, "trace", demo, "-p", b"\xff", "-o", out)
    fails(1, "trace", demo, "-p", "word " * 5000, "-o", out)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(Path(demo).read_bytes())
    assert "same file" in fails(2, "trace", copy, "-p", "x", "-o", copy)
    assert copy.read_bytes() == Path(demo).read_bytes()
    # Whether it is there already or not.
    message = fails(2, "trace", demo, "-p", "x", "-o", out, "--timeline", out)
    assert "timeline and out are the same file" in message
    assert not out.exists()


def test_uniform_routing_hits_what_the_pool_holds(edgemoe: Run, demo: str) -> None:
    script = uniform_script(layers=5, experts=7, used=3)
    assert script.shape[1:] == (5, 3)
    assert all(len(set(ranks)) == 3 for ranks in script.reshape(-1, 3).tolist())
    assert np.ptp(np.bincount(script.ravel())) < 0.2 * script.size / 7
    assert (script == uniform_script(layers=5, experts=7, used=3)).all()
    options = ("-p", "0", "-n", "40", "-r", "1", "--preload", "none", "--json")
    report = json.loads(edgemoe("bench", demo, *options, "--routing", "uniform").stdout)
    assert report["routing"] == "uniform"
    assert report["results"][0]["hit_rate"] == 1.0
    least = edgemoe("bench", demo, *options, "--routing", "uniform", "--memory", "min")
    assert json.loads(least.stdout)["results"][0]["hit_rate"] < 0.2


def test_bench_follows_the_routing_of_a_trace(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    # Every token uses the same two experts: after the first token nothing is read.
    path = tmp_path / "constant.csv"
    rows = [f"0,1,{step},0,{slot},{slot + 32}" for step in range(3) for slot in range(4)]
    path.write_text("turn,phase,step,layer,slot,expert\n" + "\n".join(rows) + "\n")
    options = ("-p", "8", "-n", "8", "-r", "1", "--memory", "20GiB", "--json")
    small = ("-p", "8", "-n", "8", "-r", "1", "--json")
    report = json.loads(edgemoe("bench", demo, *options, "--routing", path).stdout)
    assert report["routing"] == "constant.csv"
    assert [result["hit_rate"] for result in report["results"]] == [1.0, 1.0]
    assert "routing" not in json.loads(edgemoe("bench", demo, *small).stdout)


def test_only_benchmarks_take_their_routing_from_a_trace(fails: Fails, demo: str) -> None:
    for command in ("run", "chat", "trace", "perplexity"):
        assert "--routing" in fails(2, command, demo, "--routing", "x.csv")


def test_bench_refuses_a_routing_that_is_none(fails: Fails, demo: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("turn,phase,step,layer,slot,expert\n0,0,0,0,0,many\n")
    assert f"{bad}:2: expert" in fails(1, "bench", demo, "--routing", bad)
    assert "No such file" in fails(1, "bench", demo, "--routing", tmp_path / "missing.csv")


def test_recording_goes_on_after_a_read_error(demo: str) -> None:
    counts = []
    options = LoadOptions(memory="min", io="simulated:eio_after=150", trace=True)
    with Model(demo, options) as model:
        model.record(lambda phase, events: counts.append(len(events["routing"])))
        with pytest.raises(ReadError):
            list(model.generate(PROMPT, max_tokens=200, temperature=0))
        decoded = len(counts) - 1
        assert counts[1:] == [LAYERS * USED] * decoded
        with pytest.raises(ReadError):  # this device does not recover; the error is the same
            list(model.generate(PROMPT, max_tokens=200, temperature=0))
        assert len(counts) == decoded + 1


@pytest.mark.parametrize("io", ["pread", "buffered"])
def test_a_file_that_ends_early_is_named_as_such(demo: str, tmp_path: Path, io: str) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(Path(demo).read_bytes())
    with Model.load(copy, memory="min", io=io) as model:
        with copy.open("r+b") as file:
            file.truncate(copy.stat().st_size // 2)
        with pytest.raises(ReadError, match="ended early"):
            list(model.generate(PROMPT * 4, max_tokens=30, temperature=0))
