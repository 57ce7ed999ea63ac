"""Damaged or foreign checkpoint folders: one line that names file and key or tensor, no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoint import (
    SWITCH_CONFIG,
    Tensors,
    switch_folder,
    switch_tensors,
    write_folder,
    write_safetensors,
)

from edgemoe.convert import convert
from edgemoe.errors import EdgemoeError

Damage = Callable[[Path], object]


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        values = {**SWITCH_CONFIG, **changes}
        values = {key: value for key, value in values.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(values))

    return damage


def tensors(change: Callable[[Tensors], object]) -> Damage:
    def damage(folder: Path) -> None:
        values = switch_tensors(SWITCH_CONFIG)
        change(values)
        write_safetensors(folder / "model.safetensors", values)

    return damage


def text(name: str, content: str | bytes) -> Damage:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """The JSON header of the safetensors file."""

    def damage(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        values = json.loads(data[8 : 8 + size])
        change(values)
        head = json.dumps(values).encode()
        rest = data[8 + size :]
        (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + rest)

    return damage


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index(content: object) -> Damage:
    return text("model.safetensors.index.json", json.dumps(content))


def cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-5])


NORM = "encoder.final_layer_norm.weight"
OTHER = "decoder.embed_tokens.weight"
EXPERT = "encoder.block.1.layer.1.mlp.experts.expert_2.wo.weight"
CASES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "no configuration": (without("config.json"), ("config.json", "cannot be read")),
    "no JSON": (text("config.json", "{"), ("config.json", "not valid JSON")),
    "a list": (text("config.json", "[]"), ("config.json", "object")),
    "deep JSON": (text("config.json", "[" * 100000), ("config.json", "not valid JSON")),
    "no width": (config(d_model=...), ("config.json", "'d_model' is missing")),
    "a text as width": (config(d_model="32"), ("config.json", "'d_model'", "whole number")),
    "no layers": (config(num_layers=0), ("config.json", "'num_layers'", "out of range")),
    "huge": (config(d_ff=1 << 40), ("config.json", "'d_ff'", "out of range")),
    "an endless number": (
        text("config.json", json.dumps({**SWITCH_CONFIG, "layer_norm_epsilon": float("inf")})),
        ("config.json", "'layer_norm_epsilon'"),
    ),
    "another family": (config(model_type="bert"), ("config.json", "'model_type'", "'bert'")),
    "no family": (config(model_type=...), ("config.json", "'model_type' is missing")),
    "gates": (config(is_gated_act=True), ("config.json", "'is_gated_act'")),
    "another activation": (config(dense_act_fn="gelu"), ("config.json", "'dense_act_fn'")),
    "two experts": (config(num_selected_experts=2), ("config.json", "'num_selected_experts'")),
    "pickle": (only_pickle, ("pytorch_model.bin", "safetensors")),
    "no weights": (without("model.safetensors"), ("neither model.safetensors nor",)),
    "cut off": (cut, ("model.safetensors", "data_offsets")),
    "empty": (text("model.safetensors", b""), ("model.safetensors", "safetensors file")),
    "a huge header": (
        text("model.safetensors", b"\xff" * 64),
        ("model.safetensors", "safetensors file"),
    ),
    "a header of noise": (
        text("model.safetensors", (8).to_bytes(8, "little") + b"\x00" * 8),
        ("model.safetensors", "header"),
    ),
    "a type of integers": (
        header(lambda values: values[NORM].update(dtype="I64")),
        (NORM, "'I64'"),
    ),
    "a negative offset": (
        header(lambda values: values[NORM].update(data_offsets=[-1, 127])),
        (NORM, "data_offsets"),
    ),
    "offsets that do not fit": (
        header(lambda values: values[NORM].update(data_offsets=[0, 4])),
        (NORM, "data_offsets"),
    ),
    "a tensor that is a number": (header(lambda values: values.update({NORM: 3})), (NORM,)),
    "a missing tensor": (tensors(lambda values: values.pop(NORM)), (NORM, "missing")),
    "a missing expert": (
        tensors(lambda values: values.pop(EXPERT)),
        ("expert_2.wo.weight", "missing"),
    ),
    "another shape": (
        tensors(lambda values: values.update({NORM: np.ones(31, dtype=np.float32)})),
        (NORM, "[31]", "[32]"),
    ),
    "a tensor too many": (
        tensors(lambda values: values.update(strange=np.ones(3, dtype=np.float32))),
        ("'strange'", "not known"),
    ),
    "an embedding of its own": (
        tensors(lambda values: values.update({OTHER: values["shared.weight"] + 1})),
        (OTHER, "differs from 'shared.weight'"),
    ),
    "no number": (
        tensors(lambda values: values[NORM].fill(np.nan)),
        (NORM, "not finite"),
    ),
    "an index without a map": (index({}), ("index.json", "'weight_map'")),
    "an index that leaves the folder": (
        index({"weight_map": {NORM: "../model.safetensors"}}),
        ("index.json", NORM),
    ),
    "an index of nothing": (
        index({"weight_map": {NORM: "model-7.safetensors"}}),
        ("model-7.safetensors", "missing"),
    ),
    "an index that is wrong": (
        index({"weight_map": {"strange": "model.safetensors"}}),
        ("model.safetensors", "'strange'"),
    ),
    "no vocabulary": (without("spiece.model"), ("spiece.model", "missing")),
    "noise as vocabulary": (text("spiece.model", b"\xff" * 50), ("spiece.model", "damaged")),
    "an empty vocabulary": (text("spiece.model", b""), ("spiece.model", "no pieces")),
    "too many pieces": (config(vocab_size=50), ("spiece.model", "'vocab_size'")),
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_folder_is_one_error(name: str, tmp_path: Path) -> None:
    damage, parts = CASES[name]
    folder = switch_folder(tmp_path / "folder")
    damage(folder)
    with pytest.raises(EdgemoeError) as caught:
        convert(str(folder), str(tmp_path / "out.gguf"))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_values_too_large_for_f16(tmp_path: Path) -> None:
    values = switch_tensors(SWITCH_CONFIG)
    values["shared.weight"][3, 3] = 1e6
    folder = write_folder(tmp_path / "folder", SWITCH_CONFIG, values)
    with pytest.raises(EdgemoeError, match="too large for F16"):
        convert(str(folder), str(tmp_path / "out.gguf"), type="F16")
    convert(str(folder), str(tmp_path / "out.gguf"), type="BF16")


def test_the_command_line_says_it_in_one_line(tmp_path: Path, fails: Callable[..., str]) -> None:
    out = str(tmp_path / "out.gguf")
    assert "is not a folder" in fails(1, "convert", str(tmp_path / "absent"), "-o", out)
    folder = switch_folder(tmp_path / "folder")
    only_pickle(folder)
    assert "pytorch_model.bin" in fails(1, "convert", str(folder), "-o", out)
    fails(2, "convert", str(folder))
    assert "no quantisation type" in fails(2, "convert", str(folder), "-o", out, "--type", "Q9_9")
    assert "cannot be written" in fails(
        1, "convert", str(switch_folder(tmp_path / "good")), "-o", str(tmp_path / "no" / "out.gguf")
    )
