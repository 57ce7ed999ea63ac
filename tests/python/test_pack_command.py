"""edgemoe pack: usage, messages, what it prints; importance from files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_file import TensorFile

from edgemoe import _core
from edgemoe.bitwidth.array_file import write_arrays
from edgemoe.bitwidth.imatrix import read_imatrix
from edgemoe.bitwidth.packing import uniform_plan
from edgemoe.bitwidth.plan_file import Plan, save_plan, with_profile
from edgemoe.errors import ModelFormatError

Run = Callable[..., Any]
Fails = Callable[..., str]


def plan_of(demo: str, type_: str) -> Plan:
    return uniform_plan(_core.PackSource(demo), type_, None)[0]


def empty_arrays(layers: int, experts: int) -> dict[str, Any]:
    """What packing does not read."""
    each = np.zeros((layers, experts))
    units = np.zeros((layers, experts, 256), np.float32)
    none = {
        f"{kind}_{part}": np.zeros((layers, 0, *[256] * axes), np.float32)
        for kind in ("input", "hidden")
        for part, axes in (("upper", 2), ("pivots", 1), ("diagonal", 1))
    }
    return {
        "counts": each.astype(np.int64),
        "mass": each,
        "mass_squared": each,
        "reached": each.astype(np.bool_),
        "gate_row_weight": units,
        "up_row_weight": units,
        "error": np.zeros((layers, experts, 3, 1)),
        "routes": np.zeros((0, layers, 2), np.int16),
        "route_starts": np.zeros(0, np.int64),
        "held_out": np.zeros((0, 256), np.int32),
        "held_out_text": np.zeros(0, np.int32),
        "output_power": np.zeros(layers),
        "residual_power": np.zeros(layers),
        **none,
    }


def save_profile(path: Path, demo: str, **meta: Any) -> dict[str, Any]:
    """A profile with what packing reads of one."""
    source = _core.PackSource(demo)
    value = {
        "format": "edgemoe-profile",
        "version": 1,
        "architecture": source.architecture,
        "num_layers": source.num_layers,
        "num_experts": source.num_experts,
        "num_used": 2,
        "width": 256,
        "expert_width": 256,
        "tokens": 0,
        "candidates": ["Q4_K"],
        **meta,
    }
    rng = np.random.default_rng(1)
    layers, experts = value["num_layers"], value["num_experts"]
    arrays = {
        "input_importance": rng.random((layers, experts, 256), np.float32) ** 3,
        "hidden_importance": rng.random((layers, experts, 256), np.float32) ** 3,
    }
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    write_arrays(str(path), {"meta": text, **empty_arrays(layers, experts), **arrays})
    return arrays


def test_a_plan_is_packed_with_its_profile(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    arrays = save_profile(tmp_path / "profile.npz", demo)
    plan_path = tmp_path / "plan.json"
    plan = with_profile(plan_of(demo, "Q3_K"), str(plan_path), str(tmp_path / "profile.npz"))
    save_plan(plan, str(plan_path))
    out = tmp_path / "out.gguf"
    result = edgemoe("pack", demo, "--plan", plan_path, "-o", out, "--json")
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["files"] == [str(out)]
    assert figures["output_bytes"] == out.stat().st_size
    assert figures["bits_per_weight"]["expert"] == pytest.approx(3.4375)
    packed, source = TensorFile(out), TensorFile(demo)
    weights = np.ascontiguousarray(source.experts(3, "down")[9])
    expected = _core.quantize("Q3_K", weights, arrays["hidden_importance"][3, 9])
    assert packed.bytes("blk.3.ffn_down.9.weight") == expected
    origin = json.loads(packed["edgemoe.source"])
    assert origin["files"][0]["bytes"] == Path(demo).stat().st_size
    assert origin["importance"]["kind"] == "profile"
    assert json.loads(packed["edgemoe.plan"])["method"] == "uniform"


def test_the_table_names_sizes_bits_and_speed(edgemoe: Run, demo: str, tmp_path: Path) -> None:
    result = edgemoe("pack", demo, "--uniform", "q2_k", "-o", tmp_path / "out.gguf")
    text = result.stdout.decode()
    for word in ("->", "bits per weight: experts 2.625", "relative error", "MB/s", "M weights/s"):
        assert word in text
    assert result.stderr.startswith(b"edgemoe: warning: the source is quantised already")


def test_profiles_that_are_missing_or_others_are_refused(
    edgemoe: Run, fails: Fails, demo: str, tmp_path: Path
) -> None:
    profile, plan_path, out = (tmp_path / name for name in ("p.npz", "plan.json", "out.gguf"))
    save_profile(profile, demo)
    save_plan(with_profile(plan_of(demo, "Q8_0"), str(plan_path), str(profile)), str(plan_path))
    arguments = ("pack", demo, "--plan", plan_path, "-o", out)
    profile.rename(tmp_path / "moved.npz")
    message = fails(1, *arguments)
    assert "--profile" in message and "--no-importance" in message
    save_profile(profile, demo, tokens=1)
    assert "checksum differs" in fails(1, *arguments)
    save_profile(profile, demo, num_layers=7)
    assert "another model" in fails(1, *arguments, "--profile", profile)
    profile.write_bytes(b"PK" + bytes(100))
    assert "is damaged or not such a file" in fails(1, *arguments, "--profile", profile)
    assert not out.exists()
    assert edgemoe(*arguments, "--profile", tmp_path / "moved.npz").returncode == 0
    assert edgemoe(*arguments, "--no-importance", "--force").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--plan PLAN or --uniform TYPE"),
        (("--uniform", "Q9_K"), "Q4_K"),
        (("--uniform", "Q4_K", "--plan", "x"), "either"),
        (("--plan", "x", "--dense", "Q4_K"), "--dense"),
        (("--plan", "x", "--format", "gguf"), "--format"),
        (("--uniform", "Q4_K", "--imatrix", "x", "--no-importance"), "exclude"),
        (("--uniform", "Q4_K", "--memory", "much"), "not a size"),
    ],
)
def test_bad_usage(
    fails: Fails, demo: str, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    assert word in fails(2, "pack", demo, "-o", tmp_path / "out.gguf", *arguments)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--plan", "missing.json"), "missing.json: cannot be read"),
        (("--uniform", "Q4_K", "--imatrix", "missing.dat"), "cannot be read"),
        (("--uniform", "TQ1_0"), "does not write TQ1_0"),
        (("--uniform", "Q4_K", "--memory", "1MiB"), "takes at least"),
    ],
)
def test_failures_are_one_line(
    fails: Fails, demo: str, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    assert word in fails(1, "pack", demo, "-o", tmp_path / "out.gguf", *arguments)
    assert not list(tmp_path.iterdir())


def test_folders_and_missing_models(fails: Fails, demo: str, tmp_path: Path) -> None:
    assert "cannot be" in fails(1, "pack", demo, "--uniform", "Q4_K", "-o", tmp_path / "no" / "x")
    assert "cannot be opened" in fails(1, "pack", tmp_path / "x", "--uniform", "Q4_K", "-o", "y")
    assert "not a regular file" in fails(1, "pack", demo, "--uniform", "Q4_K", "-o", tmp_path)


def dat_file(entries: dict[str, tuple[int, list[float]]]) -> bytes:
    image = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        image += struct.pack("<i", len(name)) + name.encode()
        image += struct.pack("<ii", calls, len(values)) + struct.pack(f"<{len(values)}f", *values)
    return image + struct.pack("<ii", 4, 5) + b"texts"


def test_importance_matrices_of_both_forms_are_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    dat = tmp_path / "old.dat"
    dat.write_bytes(dat_file({"a.weight": (4, [2.0, 4.0]), "b.weight": (0, [1.0])}))
    found = read_imatrix(str(dat))
    assert found["a.weight"].tolist() == [0.5, 1.0]
    assert found["b.weight"].tolist() == [0.0]
    path = tmp_path / "new.gguf"
    writer = gguf.GGUFWriter(str(path), "imatrix")
    writer.add_tensor("a.weight.in_sum2", np.array([[8, 4], [3, 3]], np.float32))
    writer.add_tensor("a.weight.counts", np.array([[4], [0]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_imatrix(str(path))["a.weight"].tolist() == [2.0, 1.0, 0.0, 0.0]


GOOD = dat_file({"blk.0.ffn_up_exps.weight": (2, [1.0, 2.0, 3.0])})


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\1\0",
        struct.pack("<i", -1),
        struct.pack("<i", 1 << 30),
        GOOD[:20],
        GOOD[:40],
        GOOD[:4] + struct.pack("<i", 1 << 30) + GOOD[8:],
        dat_file({"x": (1, [float("nan")])}),
        dat_file({"x": (1, [-1.0])}),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0),
    ],
    ids=range(10),
)
def test_broken_importance_matrices_are_refused(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "broken.dat"
    path.write_bytes(image)
    with pytest.raises(ModelFormatError, match=r"broken\.dat"):
        read_imatrix(str(path))


def test_an_importance_matrix_weighs_experts_and_dense_tensors(
    edgemoe: Run, fails: Fails, demo: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    names = {"blk.1.ffn_gate_exps.weight": 16 * 256, "blk.1.attn_q.weight": 256}
    values = {name: rng.random(count, np.float32) ** 3 for name, count in names.items()}
    path = tmp_path / "imatrix.dat"
    path.write_bytes(dat_file({name: (1, list(one)) for name, one in values.items()}))
    out = tmp_path / "out.gguf"
    options = ("--uniform", "Q3_K", "--dense", "Q4_0", "--imatrix", path)
    assert edgemoe("pack", demo, *options, "-o", out).returncode == 0
    source, packed = TensorFile(demo), TensorFile(out)
    expert = np.ascontiguousarray(source.experts(1, "gate")[5])
    row = np.ascontiguousarray(values["blk.1.ffn_gate_exps.weight"].reshape(16, 256)[5])
    assert packed.bytes("blk.1.ffn_gate.5.weight") == _core.quantize("Q3_K", expert, row)
    dense = source.weights("blk.1.attn_q.weight")
    if source.type("blk.1.attn_q.weight") != "Q4_0":
        expected = _core.quantize("Q4_0", dense, values["blk.1.attn_q.weight"])
        assert packed.raw("blk.1.attn_q.weight") == expected
    path.write_bytes(dat_file({"blk.1.ffn_gate_exps.weight": (1, [1.0, 2.0])}))
    message = fails(1, "pack", demo, *options, "-o", tmp_path / "other.gguf")
    assert "another model" in message
