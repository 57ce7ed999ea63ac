"""Packing: every tensor is what quantising the source gives, whatever the way there."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_models import decoder_models
from packed_file import MATRICES, TensorFile

from edgemoe import _core
from edgemoe.bitwidth.importance import NO_IMPORTANCE, Importance
from edgemoe.bitwidth.packing import PackOptions, PackReport, pack_model, uniform_plan
from edgemoe.bitwidth.plan_file import Plan, PlanModel
from edgemoe.errors import ArgumentError, MemoryBudgetError, ModelFormatError

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_MODELS = [path.name for path in decoder_models()]
ALIGNMENT = 4096


def pack(
    source: str | Path,
    out: Path,
    plan: Plan | None = None,
    *,
    importance: Importance = NO_IMPORTANCE,
    stock: bool = False,
    progress: Any = None,
    **options: Any,
) -> PackReport:
    opened = _core.PackSource(str(source))
    if plan is None:
        plan = uniform_plan(opened, "Q4_0", None)[0]
    return pack_model(
        opened,
        plan,
        str(out),
        importance=importance,
        options=PackOptions(**{"threads": 2, **options}),
        stock_layout=stock,
        progress=progress,
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def uniform(source: str | Path, expert: str, dense: str | None = None) -> Plan:
    return uniform_plan(_core.PackSource(str(source)), expert, dense)[0]


def mixed_plan(path: str | Path, seed: int) -> Plan:
    """Types that the quantisers write and the rows allow, drawn for each matrix."""
    source = _core.PackSource(str(path))
    rng = random.Random(seed)
    writable = [name for name in _core.quant_types() if _core.can_quantize(name)]

    def draw(matrix: tuple[int, int, list[str]] | None, expert: int) -> str:
        if matrix is None:
            return "F16"
        fitting = [one for one in writable if matrix[0] % _core.block_elements(one) == 0]
        return rng.choice([*fitting, matrix[2][expert]])

    experts = []
    for layer in source.expert_matrices():
        if layer is None:
            experts.append(None)
            continue
        experts.append(
            tuple(
                tuple(draw(matrix, expert) for matrix in layer)
                for expert in range(source.num_experts)
            )
        )
    model = PlanModel(source.architecture, source.name, source.num_layers, source.num_experts)
    return Plan(model, "allocate", tuple(experts))  # type: ignore[arg-type]


def random_importance(path: str | Path, seed: int) -> Importance:
    source = _core.PackSource(str(path))
    rng = np.random.default_rng(seed)
    first = next(layer for layer in source.expert_matrices() if layer is not None)
    shape = (source.num_layers, source.num_experts)
    gate, down = first[0] or first[1], first[2]
    assert gate is not None and down is not None
    tables = [rng.random((*shape, one[0]), np.float32) ** 4 for one in (gate, down)]
    for table in tables:
        table[:, 0] = 0  # an expert that was never reached
    return Importance(tables[0], tables[1])


@pytest.fixture(scope="module")
def f16(demo: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with F16 experts, in the stock layout."""
    path = tmp_path_factory.mktemp("f16") / "demo-f16.gguf"
    pack(demo, path, uniform(demo, "F16"), stock=True)
    return path


def check_experts(source: Path, packed: Path, plan: Plan, importance: Importance) -> None:
    before, after = TensorFile(source), TensorFile(packed)
    for layer, experts in enumerate(plan.experts):
        for index, matrix in enumerate(MATRICES) if experts else ():
            if f"blk.{layer}.ffn_{matrix}.0.weight" not in after.tensors:
                continue
            weights = before.experts(layer, matrix)
            table = importance.expert_hidden if matrix == "down" else importance.expert_input
            for expert, types in enumerate(experts or ()):
                name = f"blk.{layer}.ffn_{matrix}.{expert}.weight"
                assert after.type(name) == types[index]
                row = None if table is None else np.ascontiguousarray(table[layer, expert])
                plain = np.ascontiguousarray(weights[expert])
                if not _core.can_quantize(types[index]):
                    assert np.array_equal(after.weights(name), plain), name
                else:
                    assert after.bytes(name) == _core.quantize(types[index], plain, row), name


def check_container(path: Path) -> None:
    """Order, alignment, and zeros between the tensors."""
    packed = TensorFile(path)
    image = path.read_bytes()
    end = None
    order = []
    for name, _, _, _, offset, size in packed.file.tensors():
        assert offset % ALIGNMENT == 0, name
        assert end is None or offset == -(-end // ALIGNMENT) * ALIGNMENT
        if end is not None:
            assert not any(image[end:offset]), name
        end = offset + size
        parts = name.split(".")
        is_expert = len(parts) == 5 and parts[3].isdigit()
        matrix = MATRICES.index(parts[2].removeprefix("ffn_")) if is_expert else 0
        order.append((is_expert, *((int(parts[1]), int(parts[3]), matrix) if is_expert else ())))
    experts = [key for key in order if key[0]]
    assert order == sorted(order, key=lambda key: key[0]) and experts == sorted(experts)
    assert len(image) % ALIGNMENT == 0 and not any(image[end:])


@pytest.mark.parametrize("weighted", [False, True])
def test_every_expert_is_what_quantising_gives(f16: Path, tmp_path: Path, weighted: bool) -> None:
    plan = mixed_plan(f16, seed=7)
    importance = random_importance(f16, seed=3) if weighted else NO_IMPORTANCE
    out = tmp_path / "out.gguf"
    report = pack(f16, out, plan, importance=importance)
    check_experts(f16, out, plan, importance)
    check_container(out)
    assert not report.warnings
    assert report.result["output_bytes"] == out.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_everything_else_stays(demo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    pack(demo, out, mixed_plan(demo, seed=1))
    before, after = TensorFile(demo), TensorFile(out)
    for name in before.tensors:
        if "_exps." not in name:
            assert after.type(name) == before.type(name) and after.raw(name) == before.raw(name)
    added = ("edgemoe.", "general.alignment", "general.quantization_version")
    kept = after.file.metadata()
    for key, value in before.file.metadata().items():
        if not key.startswith(("split.", *added)):
            assert np.array_equal(kept.pop(key), value), key
    assert all(key.startswith(added) for key in kept)
    assert len(after["edgemoe.expert.checksums"]) == 6 * 16


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_every_architecture_is_packed(name: str, tmp_path: Path) -> None:
    source, out = GOLDEN / name, tmp_path / "out.gguf"
    plan = mixed_plan(source, seed=5)
    pack(source, out, plan)
    check_experts(source, out, plan, NO_IMPORTANCE)
    check_container(out)


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_a_packed_file_packs_back_to_the_stock_layout(name: str, tmp_path: Path) -> None:
    source = GOLDEN / name
    packed, back = tmp_path / "packed.gguf", tmp_path / "back.gguf"
    plan = uniform(source, "Q8_0")
    pack(source, packed, plan)
    pack(packed, back, plan, stock=True)
    before, after = TensorFile(packed), TensorFile(back)
    for name_ in before.tensors:
        parts = name_.split(".")
        if len(parts) == 5 and parts[3].isdigit():
            layer, matrix = int(parts[1]), parts[2].removeprefix("ffn_")
            stack = after.experts(layer, matrix)
            assert np.array_equal(stack[int(parts[3])], before.weights(name_))
    assert not after.file.values("edgemoe.")


def test_threads_memory_and_shards_change_nothing(demo: str, tmp_path: Path) -> None:
    plan = mixed_plan(demo, seed=2)
    pack(demo, tmp_path / "a.gguf", plan, threads=1)
    small = _core.memory()["resident_bytes"] + (40 << 20)
    pack(demo, tmp_path / "b.gguf", plan, threads=3, memory=small)
    assert digest(tmp_path / "a.gguf") == digest(tmp_path / "b.gguf")
    pack(demo, tmp_path / "c.gguf", plan, max_shard=3 << 20)
    shards = sorted(tmp_path.glob("c-*.gguf"))
    assert len(shards) > 2 and shards[0].name == f"c-00001-of-{len(shards):05d}.gguf"
    assert all(path.stat().st_size <= 3 << 20 for path in shards)
    whole, parts = TensorFile(tmp_path / "a.gguf"), TensorFile(shards[0])
    assert list(whole.tensors) == list(parts.tensors)
    for name in whole.tensors:
        assert whole.raw(name) == parts.raw(name)
    for key in ("edgemoe.expert.checksums", "edgemoe.dense.checksums"):
        assert np.array_equal(whole[key], parts[key])
    # Shards are a source like any other.
    pack(shards[1], tmp_path / "d.gguf", plan)
    for name in whole.tensors:
        assert whole.raw(name) == TensorFile(tmp_path / "d.gguf").raw(name)


def test_the_stock_layout_is_read_by_others(demo: str, f16: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    out = tmp_path / "out.gguf"
    importance = random_importance(f16, seed=9)
    pack(f16, out, uniform(f16, "Q4_K", "Q8_0"), stock=True, importance=importance)
    reader = gguf.GGUFReader(str(out))
    assert int(reader.fields["general.file_type"].contents()) == 14
    source = TensorFile(f16)
    for tensor in reader.tensors:
        assert [int(n) for n in tensor.shape] == list(source.tensors[tensor.name][2])
        if not tensor.name.endswith("_exps.weight"):
            continue
        assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_K
        _, layer, stem, _ = tensor.name.split(".")
        table = importance.expert_hidden if "down" in stem else importance.expert_input
        assert table is not None
        data = np.ascontiguousarray(tensor.data).reshape(16, -1)
        for expert, weights in enumerate(source.weights(tensor.name)):
            plain = np.ascontiguousarray(weights)
            expected = _core.quantize("Q4_K", plain, table[int(layer), expert])
            assert data[expert].tobytes() == expected


def test_every_matrix_of_a_dense_stack_has_importance_of_its_own(tmp_path: Path) -> None:
    source, out = GOLDEN / "deepseek2-v3.gguf", tmp_path / "out.gguf"
    name = "blk.1.attn_v_b.weight"  # 24 rows a head, 32 columns
    weights = TensorFile(source).weights(name)  # [heads, rows, columns]
    heads, _, columns = weights.shape
    importance = np.random.default_rng(6).random((heads, columns), np.float32) ** 4
    plan = replace(uniform(source, "Q8_0"), dense={name: "Q4_0"})
    pack(source, out, plan, importance=Importance(tensors={name: importance.reshape(-1)}))
    raw = TensorFile(out).raw(name)
    for head in range(heads):
        expected = _core.quantize("Q4_0", weights[head].copy(), importance[head])
        assert raw[head * len(expected) : (head + 1) * len(expected)] == expected


def test_types_that_do_not_fit_are_replaced_and_named() -> None:
    source = _core.PackSource(str(GOLDEN / "gpt-oss-mxfp4.gguf"))
    plan, notes = uniform_plan(source, "Q4_K", None)
    columns = {m[0] for layer in source.expert_matrices() if layer for m in layer if m}
    if all(one % 256 == 0 for one in columns):
        assert not notes
    else:
        assert any("no whole blocks of Q4_K" in note for note in notes)
        assert not any("Q4_K" in types for layer in plan.experts if layer for types in layer)


def test_a_plan_for_another_model_is_refused(demo: str, tmp_path: Path) -> None:
    plan = uniform(demo, "Q4_K")
    wrong: list[tuple[Plan, str]] = [
        (replace(plan, model=replace(plan.model, architecture="olmoe")), "architecture"),
        (replace(plan, experts=(None, *plan.experts[1:])), r"experts\[0\] does not fit"),
        (replace(plan, dense={"blk.9.attn_q.weight": "Q4_K"}), "no dense tensor"),
        (replace(plan, dense={"output_norm.weight": "Q4_K"}), "no matrix"),
    ]
    bad = list(plan.experts)
    bad[2] = (("Q4_K", "TQ1_0", "Q4_K"), *bad[2][1:])  # type: ignore[index]
    wrong.append((replace(plan, experts=tuple(bad)), r"experts\[2\]\[0\]\[1\] is TQ1_0"))
    for one, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            pack(demo, tmp_path / "out.gguf", one)
    assert not list(tmp_path.iterdir())


def with_weight(source: Path, target: Path, name: str, index: int, value: float) -> None:
    """A copy of an F16 model in which one weight of a tensor is another."""
    image = bytearray(source.read_bytes())
    offset = TensorFile(source).tensors[name][4]
    image[offset + 2 * index : offset + 2 * index + 2] = np.float16(value).tobytes()
    target.write_bytes(image)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(f16: Path, tmp_path: Path, value: float) -> None:
    source = tmp_path / "bad.gguf"
    name = "blk.2.ffn_up_exps.weight"
    with_weight(f16, source, name, (5 * 256 + 17) * 256 + 3, value)
    with pytest.raises(ModelFormatError, match=r"'blk\.2\.ffn_up\.5\.weight'.* row 17, column 3 "):
        pack(source, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]
    # Bytes that are only copied are nobody's business.
    pack(source, tmp_path / "out.gguf", uniform(source, "F16"))


def test_requantising_warns_and_says_what_it_cost(demo: str, f16: Path, tmp_path: Path) -> None:
    first = pack(f16, tmp_path / "q4.gguf", uniform(f16, "Q4_K"))
    assert not first.warnings
    second = pack(tmp_path / "q4.gguf", tmp_path / "q3.gguf", uniform(f16, "Q3_K"))
    assert "Q3_K" in second.warnings[0] and "Q4_K" in second.warnings[0]
    packed = TensorFile(tmp_path / "q3.gguf")
    assert packed["edgemoe.loss.types"] == [b"Q3_K"]
    error = float(packed["edgemoe.loss.relative_errors"][0])
    assert 0.01 < error < 0.2
    means = []
    before = TensorFile(tmp_path / "q4.gguf")
    for name in before.tensors:
        if ".ffn_" in name and name.split(".")[3].isdigit():
            x, y = before.weights(name).astype(float), packed.weights(name).astype(float)
            means.append(((x - y) ** 2).sum() / (x**2).sum())
    assert error == pytest.approx(np.sqrt(np.mean(means)), rel=1e-6)


def test_what_is_named_wrongly_is_refused(demo: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    pack(demo, out)
    with pytest.raises(ArgumentError, match="--force"):
        pack(demo, out)
    before = digest(out)
    with pytest.raises(ArgumentError, match="is the model that is packed"):
        pack(out, out, overwrite=True)
    (tmp_path / "link.gguf").symlink_to(out)
    with pytest.raises(ArgumentError, match="is the model that is packed"):
        pack(out, tmp_path / "link.gguf", overwrite=True)
    with pytest.raises(ArgumentError, match="not a regular file"):
        pack(demo, Path("/dev/null"), overwrite=True)
    with pytest.raises(MemoryBudgetError, match="takes at least"):
        pack(demo, tmp_path / "b.gguf", memory=1 << 20)
    with pytest.raises(ArgumentError, match="too small"):
        pack(demo, tmp_path / "b.gguf", max_shard=100_000)
    assert digest(out) == before
    pack(demo, out, uniform(demo, "Q8_0"), overwrite=True)
    assert digest(out) != before
    assert {path.name for path in tmp_path.iterdir()} == {"out.gguf", "link.gguf"}


def test_importance_of_another_shape_is_refused(demo: str, tmp_path: Path) -> None:
    good = random_importance(demo, seed=0)
    assert good.expert_input is not None
    negative = good.expert_input.copy()
    negative[1, 2, 3] = -1
    for table in (good.expert_input[:, :, :-1], good.expert_input[:-1], negative):
        with pytest.raises(ArgumentError, match="importance"):
            pack(demo, tmp_path / "out.gguf", importance=replace(good, expert_input=table))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.75])
def test_stopping_leaves_what_can_be_gone_on_with(f16: Path, tmp_path: Path, share: float) -> None:
    plan = mixed_plan(f16, seed=4)
    pack(f16, tmp_path / "whole.gguf", plan)
    out = tmp_path / "out.gguf"

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, resumed: int) -> None:
        if done > share * total:
            raise Stopped

    with pytest.raises(Stopped):
        pack(f16, out, plan, progress=stop)
    assert not out.exists()
    report = pack(f16, out, plan)
    assert share < 0.5 or report.result["resumed_weights"] > 0
    assert digest(out) == digest(tmp_path / "whole.gguf")
    assert {path.name for path in tmp_path.iterdir()} == {"whole.gguf", "out.gguf"}
