"""Packed containers: the same answer as the stock file of the same weights, and checksums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import packed_writer
import pytest
from conftest import Run
from packed_writer import Container, mixed_type, packed, stock, with_stock_layout

from edgemoe import Model, _core
from edgemoe.errors import ArgumentError, ModelFormatError, UnsupportedModelError
from edgemoe.options import LoadOptions

GOLDEN = Path(__file__).parent.parent / "golden"
TOKENS = [1, *((7 * i * i + 13 * i + 5) % 4096 for i in range(60))]
RUNS: tuple[dict[str, Any], ...] = (
    {"memory": "1GiB"},
    {"memory": "min", "batch": 16},
    {"memory": "min", "io": "buffered"},
    {"memory": "min", "io": "simulated:seed=1,reorder=1,short=0.2"},
    {"memory": "1GiB", "mode": "resident"},
    {"memory": "min", "mode": "layer-by-layer"},
)


def logits(
    path: str, tokens: list[int], *, one_by_one: bool = False, **options: Any
) -> npt.NDArray[np.float32]:
    chosen = LoadOptions(context=128, **options)
    with Model(path, chosen, with_text=False) as model:
        found = model.logits(tokens, one_by_one=one_by_one)
    assert np.isfinite(found).all()
    return found


def check_same(first: str, second: str, tokens: list[int]) -> None:
    expected = logits(first, tokens, memory="1GiB").tobytes()
    for options in RUNS:
        assert logits(second, tokens, **options).tobytes() == expected, options
    assert logits(second, tokens, one_by_one=True, memory="min").tobytes() == expected


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "Q4_0", "BF16", "F16", "TQ2_0"])
def test_a_packed_file_of_one_type_equals_the_stock_file(
    demo: str, tmp_path: Path, name: str
) -> None:
    first = demo if name == "Q4_K" else stock(demo, name).write(tmp_path / "stock.gguf")
    second = packed(demo, lambda layer, expert, matrix: name).write(tmp_path / "packed.gguf")
    check_same(first, second, TOKENS)


def test_a_packed_file_of_many_types_equals_one_in_the_layout_of_stock_files(
    demo: str, tmp_path: Path
) -> None:
    container = packed(demo, mixed_type)
    first = with_stock_layout(container).write(tmp_path / "stock.gguf")
    check_same(first, container.write(tmp_path / "packed.gguf"), TOKENS)


@pytest.mark.parametrize(
    "name", ["gpt-oss-mxfp4", "deepseek2-fused-gate-up", "mixtral", "granitemoe-shared"]
)
def test_every_kind_of_expert_can_be_packed(tmp_path: Path, name: str) -> None:
    source = str(GOLDEN / f"{name}.gguf")
    tokens = np.load(GOLDEN / f"{name}.npz")["tokens"].tolist()
    check_same(source, packed(source).write(tmp_path / "packed.gguf"), tokens)


def test_gate_and_up_that_come_before_down_change_nothing(demo: str, tmp_path: Path) -> None:
    # Every matrix is large enough to be read in two parts, which a slow device brings apart.
    path = packed(demo, lambda layer, expert, matrix: ("Q8_0", "BF16")[expert % 2])
    second = path.write(tmp_path / "packed.gguf")
    expected = logits(second, TOKENS[:12], memory="1GiB", threads=1)
    for threads in (1, 2, 3):
        found = logits(
            second,
            TOKENS[:12],
            one_by_one=True,
            memory="min",
            threads=threads,
            io="simulated:latency=3000,serial=1",
        )
        assert found.tobytes() == expected.tobytes()


@pytest.fixture(scope="module")
def mixed(demo: str) -> Container:
    return packed(demo, mixed_type)


def test_one_read_brings_an_expert(demo: str, mixed: Container, tmp_path: Path) -> None:
    path = mixed.write(tmp_path / "packed.gguf")
    with Model.load(path, memory="min", context=64) as model:
        model.logits([1, 2, 3], one_by_one=True)
        packed_stats = model.stats()
    with Model.load(demo, memory="min", context=64) as model:
        model.logits([1, 2, 3], one_by_one=True)
        stock_stats = model.stats()
    assert packed_stats.reads < stock_stats.reads / 2


def test_inspect_shows_types_and_bits(mixed: Container, tmp_path: Path, edgemoe: Run) -> None:
    mixed.metadata["edgemoe.plan"] = packed_writer.string(
        json.dumps({"method": "allocate", "target": {"bits": 4.5}})
    )
    path = mixed.write(tmp_path / "packed.gguf")
    result = edgemoe("inspect", path, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["packed"]["plan"]["method"] == "allocate"
    assert report["packed"]["layout_version"] == 1
    layer = report["experts"][0]
    assert sum(layer["matrices"].values()) == 48
    assert len(layer["matrices"]) == 7
    assert len(set(layer["bits_by_expert"])) > 3
    assert layer["bits_per_weight"] == pytest.approx(np.mean(layer["bits_by_expert"]))
    text = edgemoe("inspect", path).stdout.decode()
    assert "packed: format 1, layout 1; plan allocate (bits 4.5)" in text
    assert "bits per weight" in text


def test_verify_finds_a_flipped_byte(
    mixed: Container, tmp_path: Path, edgemoe: Run, fails: Any
) -> None:
    path = Path(mixed.write(tmp_path / "packed.gguf"))
    result = edgemoe("inspect", path, "--verify", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["verification"]
    assert (found["damaged"], found["first_damaged"], found["experts"]) == (0, None, 96)
    file = _core.GgufFile(str(path))
    offsets = {tensor[0]: tensor[-2] for tensor in file.tensors()}
    sizes = {tensor[0]: tensor[-1] for tensor in file.tensors()}
    name = "blk.3.ffn_down.7.weight"
    data = bytearray(path.read_bytes())
    data[offsets[name] + sizes[name] // 2] ^= 1
    path.write_bytes(data)
    message = fails(1, "inspect", path, "--verify")
    assert "expert 7 of layer 3" in message
    result = edgemoe("inspect", path, "--verify", "--json")
    assert result.returncode == 1
    first = json.loads(result.stdout)["verification"]["first_damaged"]
    assert (first["layer"], first["expert"], first["tensor"]) == (3, 7, None)
    message = fails(1, "run", path, "-p", "x", "-n", "1", "--mode", "resident", "--verify")
    assert "expert 7 of layer 3" in message
    with Model.load(path, memory="min", verify=True) as model:
        for _ in range(2):
            with pytest.raises(ModelFormatError, match="expert 7 of layer 3"):
                model.logits(TOKENS)


def test_verify_needs_checksums(demo: str, fails: Any) -> None:
    assert "checksums" in fails(1, "inspect", demo, "--verify")
    with pytest.raises(ArgumentError, match="checksums"):
        Model.load(demo, verify=True)


@pytest.mark.parametrize("key", ["edgemoe.format.version", "edgemoe.layout.version"])
def test_an_unknown_version_is_refused(
    mixed: Container, tmp_path: Path, key: str, fails: Any
) -> None:
    changed = Container(dict(mixed.metadata), mixed.dense, mixed.experts)
    changed.metadata[key] = packed_writer.uint32(2)
    path = changed.write(tmp_path / "packed.gguf")
    with pytest.raises(UnsupportedModelError, match=f"{key}.*is 2"):
        Model.load(path)
    assert key in fails(1, "inspect", path)
