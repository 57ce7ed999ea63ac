"""Low copies: packed beside experts, nothing at all while the option is off, and lossy by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, half_resident
from packed_file import MATRICES, TensorFile

from edgemoe import ArgumentError, Model, ModelFormatError, PreloadPolicy, _core
from edgemoe.bitwidth.importance import NO_IMPORTANCE
from edgemoe.bitwidth.low_copies import add_low_copies
from edgemoe.bitwidth.packing import PackOptions, pack_model, uniform_plan
from edgemoe.bitwidth.plan_file import Plan
from edgemoe.perplexity import MemoryBase, measure_perplexity

TOKENS = [1, *((7 * i * i + 13 * i + 5) % 4096 for i in range(120))]
TEXT = "There was once a king who had three daughters, and the youngest was so fair that the sun "
LAYERS, EXPERTS = 6, 16
Fails = Callable[..., str]


def pack(
    source: str, out: Path, plan: Plan | None = None, low: str | None = "Q2_K", progress: Any = None
) -> list[str]:
    """Packs with a low copy of each expert; returns the notes."""
    opened = _core.PackSource(source)
    plan = plan or uniform_plan(opened, "Q4_K", None)[0]
    copies, notes = None, []
    if low is not None:
        plan, copies, notes = add_low_copies(plan, opened, low)
    pack_model(
        opened,
        plan,
        str(out),
        importance=NO_IMPORTANCE,
        options=PackOptions(threads=2),
        low_copies=copies,
        progress=progress,
    )
    return notes


@pytest.fixture(scope="module")
def files(demo: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The demo model with a Q2_K copy of each Q4_K expert, and without."""
    folder = tmp_path_factory.mktemp("low")
    pack(demo, folder / "low.gguf")
    pack(demo, folder / "plain.gguf", low=None)
    return str(folder / "low.gguf"), str(folder / "plain.gguf")


def logits(path: str, threshold: float | None, *, one_by_one: bool = True) -> np.ndarray:
    with half_resident(path, lossy_low_copy=threshold) as model:
        return model.logits(TOKENS, one_by_one=one_by_one)


def test_copies_lie_behind_their_experts_with_the_bytes_of_the_quantiser(
    demo: str, files: tuple[str, str]
) -> None:
    found, plain = TensorFile(files[0]), TensorFile(files[1])
    source = TensorFile(demo)
    names = [tensor[0] for tensor in found.file.tensors()]
    assert [name for name in names if ".low." not in name] == list(plain.tensors)
    for layer in (0, LAYERS - 1):
        for expert in (0, 7, EXPERTS - 1):
            last = names.index(f"blk.{layer}.ffn_down.{expert}.weight")
            for index, matrix in enumerate(MATRICES):
                name = f"blk.{layer}.ffn_{matrix}.{expert}.low.weight"
                assert names[last + 1 + index] == name
                assert found.type(name) == "Q2_K"
                weights = np.ascontiguousarray(source.experts(layer, matrix)[expert])
                packed = _core.testing.ungroup("Q2_K", found.raw(name), *weights.shape)
                assert packed == _core.quantize("Q2_K", weights), name
    for name, tensor in plain.tensors.items():
        assert found.raw(name) == plain.raw(name)
        assert found.tensors[name][1:3] == tensor[1:3]
    assert found["edgemoe.low.version"] == 1
    checksums = found["edgemoe.low.checksums"]
    first = b"".join(found.raw(f"blk.0.ffn_{matrix}.0.low.weight") for matrix in MATRICES)
    assert checksums[0] == _core.testing.fast_hash(first)
    assert len(checksums) == LAYERS * EXPERTS and all(checksums)
    for key in ("edgemoe.expert.checksums", "edgemoe.dense.checksums"):
        assert list(found[key]) == list(plain[key])


def test_an_expert_that_is_as_narrow_has_no_copy(demo: str, tmp_path: Path) -> None:
    plan = uniform_plan(_core.PackSource(demo), "Q4_K", None)[0]
    first = plan.experts[0]
    assert first is not None
    mixed = (("Q2_K",) * 3, ("Q2_K", "Q3_K", "IQ2_XXS"), *first[2:])
    plan = Plan(plan.model, "allocate", (mixed, *plan.experts[1:]))
    out = tmp_path / "out.gguf"
    notes = pack(demo, out, plan)
    assert notes == ["1 of 96 experts are no wider than their low copy: none"]
    found = TensorFile(out)
    assert "blk.0.ffn_gate.0.low.weight" not in found.tensors
    types = [found.type(f"blk.0.ffn_{matrix}.1.low.weight") for matrix in MATRICES]
    assert types == ["Q2_K", "Q2_K", "IQ2_XXS"]
    assert found["edgemoe.low.checksums"][0] == 0
    with half_resident(str(out), lossy_low_copy=0.0, verify=True) as model:
        model.logits(TOKENS, one_by_one=True)
    narrow = uniform_plan(_core.PackSource(demo), "Q2_K", None)[0]
    with pytest.raises(ArgumentError, match="wider than Q2_K"):
        pack(demo, out, narrow)


def test_packing_goes_on_where_it_was_stopped(
    demo: str, files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"

    def stop_late(done: int, total: int, _resumed: int) -> None:
        if 5 * done > 4 * total:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pack(demo, out, progress=stop_late)
    assert not out.exists()
    resumed = []
    pack(demo, out, progress=lambda _done, _total, before: resumed.append(before))
    assert max(resumed) > 0
    assert out.read_bytes() == Path(files[0]).read_bytes()


def test_packing_again_leaves_copies_behind(files: tuple[str, str], tmp_path: Path) -> None:
    plan = uniform_plan(_core.PackSource(files[0]), "Q4_K", None)[0]
    pack(files[0], tmp_path / "out.gguf", plan, low=None)
    again, plain = TensorFile(tmp_path / "out.gguf"), TensorFile(files[1])
    assert list(again.tensors) == list(plain.tensors)
    assert all(again.raw(name) == plain.raw(name) for name in plain.tensors)


def test_the_command_packs_and_inspect_names_copies(
    edgemoe: Run, fails: Fails, demo: str, files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    options = ("--uniform", "Q4_K", "--low-copy", "q2_k", "-o", out)
    result = edgemoe("pack", demo, *options, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["low_copies"] == LAYERS * EXPERTS
    assert report["bits_per_weight"]["expert"] == pytest.approx(4.5)
    assert out.read_bytes() == Path(files[0]).read_bytes()
    text = edgemoe("pack", demo, *options, "--force").stdout.decode()
    assert "low copies: 96, " in text
    text = edgemoe("inspect", out, "--verify").stdout.decode()
    assert "low copies: 96 of 96 experts" in text and "288 x Q2_K" in text
    assert "low_copies Q2_K" in text
    assert "96 experts, 96 low copies" in text
    found = json.loads(edgemoe("inspect", out, "--json").stdout)
    assert found["low_copies"]["copies"] == 96
    assert found["low_copies"]["bits_per_weight"] == pytest.approx(2.625)
    assert json.loads(edgemoe("inspect", files[1], "--json").stdout)["low_copies"] is None
    assert "container" in fails(2, "pack", demo, *options, "--format", "gguf")
    fails(2, "pack", demo, "--uniform", "Q4_K", "--low-copy", "Q9", "-o", out)
    narrow = ("--uniform", "Q2_K", "--low-copy", "Q4_K", "-o", out, "--force")
    assert "wider than Q4_K" in fails(1, "pack", demo, *narrow)


def test_a_flipped_byte_in_a_copy_is_named(
    files: tuple[str, str], tmp_path: Path, edgemoe: Run, fails: Fails
) -> None:
    found = TensorFile(files[0])
    data = bytearray(Path(files[0]).read_bytes())
    *_, offset, size = found.tensors["blk.3.ffn_up.7.low.weight"]
    data[offset + size // 2] ^= 1
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    message = fails(1, "inspect", path, "--verify")
    assert "the low copy of expert 7 of layer 3" in message
    first = json.loads(edgemoe("inspect", path, "--verify", "--json").stdout)["verification"]
    assert (first["damaged"], first["low_copies"]) == (1, 96)
    place = first["first_damaged"]
    assert (place["layer"], place["expert"], place["low_copy"]) == (3, 7, True)
    with Model.load(str(path), memory="min", verify=True) as model:
        model.logits(TOKENS)
    with half_resident(str(path), lossy_low_copy=0.0, verify=True) as model:
        with pytest.raises(ModelFormatError, match="the low copy of expert 7 of layer 3"):
            for _ in range(20):
                model.logits(TOKENS, one_by_one=True)
        model.logits(TOKENS)


def test_without_the_option_copies_change_nothing(files: tuple[str, str]) -> None:
    for one_by_one in (False, True):
        expected = logits(files[1], None, one_by_one=one_by_one)
        assert np.array_equal(logits(files[0], None, one_by_one=one_by_one), expected)
    counts = []
    for path in files:
        with half_resident(path, lossy_low_copy=None, preload=PreloadPolicy("none")) as model:
            model.logits(TOKENS, one_by_one=True)
            stats = model.stats()
            assert stats.lossy_low_copy is None
            pool = stats.memory["expert_pool_bytes"]
            counts.append((pool, stats.bytes_read, stats.reads, stats.expert_hits))
    assert counts[0] == counts[1]


def test_prefill_is_exact_and_so_is_what_is_in_memory(files: tuple[str, str]) -> None:
    expected = logits(files[1], None)
    assert np.array_equal(logits(files[0], 0.0, one_by_one=False), expected)
    assert not np.array_equal(logits(files[0], 0.0), expected)
    with Model.load(
        files[0], context=128, memory="1GiB", mode="resident", lossy_low_copy=0.0
    ) as model:
        assert np.array_equal(model.logits(TOKENS, one_by_one=True), expected)
        low = model.stats().lossy_low_copy
        assert low is not None
        assert (low.share, low.low_choices, low.bytes_saved) == (0.0, 0, 0)


def test_the_last_token_of_a_prompt_is_exact_wherever_batches_end(files: tuple[str, str]) -> None:
    tokens = TOKENS[:17]  # the last one is a batch of its own
    rows = []
    for threshold in (None, 0.0):
        with Model.load(
            files[0],
            context=64,
            batch=8,
            memory="min",
            preload=PreloadPolicy("none"),
            lossy_low_copy=threshold,
        ) as model:
            rows.append(model.logits(tokens))
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("budget", ["min", "half"])
def test_it_reads_less(files: tuple[str, str], budget: str) -> None:
    shares, reads = [], []
    for threshold in (None, 0.6, 0.0):
        with half_resident(files[0], lossy_low_copy=threshold) as model:
            if budget == "min":
                model.set_memory("min")
            model.logits(TOKENS, one_by_one=True)
            stats = model.stats()
        reads.append(stats.bytes_read)
        low = stats.lossy_low_copy
        assert (low is not None) == (threshold is not None) == model.is_lossy
        if low is None:
            continue
        shares.append(low.share)
        assert low.threshold == threshold
        assert low.choices == stats.decode.expert_demands
        assert 0 < low.low_choices < low.choices
        assert low.bytes_saved > 0
        assert stats.read_ahead_bytes == 0
    assert reads[0] > reads[1] > reads[2]
    assert 0 < shares[0] < shares[1] < 0.5  # the first choice of two is never a low copy


def test_both_lossy_options_go_together(files: tuple[str, str]) -> None:
    with half_resident(files[0], lossy_low_copy=0.0, lossy_routing=0.9) as model:
        model.logits(TOKENS, one_by_one=True)
        stats = model.stats()
    assert stats.lossy_routing is not None and stats.lossy_low_copy is not None
    assert stats.lossy_routing.agreement >= 0.9
    assert stats.lossy_routing.substitutions > 0
    assert stats.lossy_low_copy.low_choices > 0


def test_divergence_is_measured_token_by_token(files: tuple[str, str]) -> None:
    base = MemoryBase()
    with Model.load(files[1], context=64) as model:
        measure_perplexity(model, TEXT * 6, context=64, base=None, save_base=base)
    with half_resident(files[0], lossy_low_copy=0.0, context=64) as model:
        batch = measure_perplexity(model, TEXT * 6, context=64, base=base)
        single = measure_perplexity(model, TEXT * 6, context=64, base=base, one_by_one=True)
    assert batch.divergence is not None
    assert single.divergence is not None
    assert batch.divergence.kl_max < 1e-7
    assert single.divergence.kl_mean > 1e-5


def test_every_output_says_lossy(edgemoe: Run, files: tuple[str, str], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text(TEXT * 6)
    tokens = tmp_path / "tokens"
    tokens.write_text("1 2 3 4")
    model = files[0]
    lossy = ("--lossy-low-copy", "0", "--memory", "min")
    commands: list[tuple[str | Path, ...]] = [
        ("run", model, "-p", "Once", "-n", "8"),
        ("bench", model, "-p", "0", "-n", "8", "-r", "1"),
        ("perplexity", model, "--file", text, "-c", "64"),
        ("logits", model, "--tokens", tokens, "--out", tmp_path / "logits.npy", "--one-by-one"),
        ("trace", model, "-p", "Once", "-n", "8", "-o", tmp_path / "trace.csv"),
    ]
    for command in commands:
        result = edgemoe(*command, *lossy)
        assert result.returncode == 0, result.stderr
        assert b"lossy: low copies computed" in result.stdout + result.stderr, command[0]
    assert b"# lossy_low_copy=0\n" in (tmp_path / "trace.csv").read_bytes()
    for command in commands[:3]:
        report = json.loads(edgemoe(*command, *lossy, "--json").stdout)
        found = report["results"][0] if command[0] == "bench" else report
        assert found["lossy_low_copy"]["choices"] > 0
        assert found["lossy_low_copy"]["share"] > 0
        assert found["bytes_read_per_token"] > 0
        exact = edgemoe(*command)
        assert b"lossy:" not in exact.stdout + exact.stderr, command[0]


def test_what_makes_no_sense_is_refused(
    edgemoe: Run, fails: Fails, demo: str, files: tuple[str, str], tmp_path: Path
) -> None:
    for threshold in ("-0.1", "1", "x"):
        fails(2, "run", files[0], "-p", "x", "--lossy-low-copy", threshold)
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ArgumentError, match="lossy_low_copy"):
            Model.load(files[0], lossy_low_copy=value)
    for path in (demo, files[1]):
        message = fails(1, "run", path, "-p", "x", "--lossy-low-copy", "0.5")
        assert "has no low copies" in message and "--low-copy" in message
    for mode in ("on-demand", "layer-by-layer"):
        message = fails(1, "run", files[0], "-p", "x", "--mode", mode, "--lossy-low-copy", "0.5")
        assert f"mode {mode}" in message
    route = tmp_path / "route.csv"
    assert edgemoe("trace", demo, "-p", "x", "-n", "4", "-o", route).returncode == 0
    options = ("-p", "0", "-n", "4", "--routing", route, "--lossy-low-copy", "0.5")
    assert "scores" in fails(1, "bench", files[0], *options)


def test_what_a_run_with_copies_learns_is_not_kept(files: tuple[str, str], tmp_path: Path) -> None:
    with half_resident(files[0], lossy_low_copy=0.0, cache_folder=str(tmp_path)) as model:
        model.logits(TOKENS, one_by_one=True)
    assert list(tmp_path.iterdir()) == []
    with half_resident(files[0], lossy_low_copy=None, cache_folder=str(tmp_path)) as model:
        model.logits(TOKENS, one_by_one=True)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept
    with half_resident(files[0], lossy_low_copy=0.0, cache_folder=str(tmp_path)) as model:
        model.logits(TOKENS, one_by_one=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept
