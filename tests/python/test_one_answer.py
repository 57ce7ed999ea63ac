"""Promise 2 of the design: the same bits whatever the budget, cache, threads, reader and level."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import packed_writer
import pytest
from conftest import Run

from edgemoe import Model, _core
from edgemoe.options import (
    EVICTION_POLICIES,
    MODES,
    PREDICTORS,
    PRELOAD_POLICIES,
    PreloadPolicy,
)

TOKENS = [1, *((7 * i * i + 13 * i + 5) % 4096 for i in range(150))]


def digest(path: str, *, one_by_one: bool = False, **options: Any) -> str:
    with Model.load(path, context=256, **options) as model:
        logits = model.logits(TOKENS, one_by_one=one_by_one)
    assert np.isfinite(logits).all()
    return hashlib.sha256(logits.tobytes()).hexdigest()


@pytest.fixture(scope="module", params=["stock", "packed"])
def demo(
    request: pytest.FixtureRequest, demo: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The demo model, and it packed with types that differ within experts."""
    if request.param == "stock":
        return demo
    container = packed_writer.packed(demo, packed_writer.mixed_type)
    return container.write(tmp_path_factory.mktemp("packed") / "mixed.gguf")


@pytest.fixture(scope="module")
def expected(demo: str) -> str:
    """Everything resident, one thread, one batch."""
    return digest(demo, memory="1GiB", threads=1, batch=256)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(demo: str, expected: str, threads: int) -> None:
    assert digest(demo, threads=threads) == expected


@pytest.mark.parametrize("batch", [1, 7, 32, 512])
def test_batches(demo: str, expected: str, batch: int) -> None:
    assert digest(demo, memory="min", batch=batch) == expected


def test_one_by_one(demo: str, expected: str) -> None:
    assert digest(demo, one_by_one=True) == expected


@pytest.fixture(scope="module", params=["q8_0", "f32"])
def kv_expected(request: pytest.FixtureRequest, demo: str, expected: str) -> tuple[str, str]:
    """Another type of keys and values than f16, and its answer, which is another one."""
    kv_type = str(request.param)
    found = digest(demo, memory="1GiB", threads=1, batch=256, kv_type=kv_type)
    assert found != expected
    return kv_type, found


@pytest.mark.parametrize(("batch", "threads"), [(1, 2), (7, 3), (64, 1)])
def test_batches_with_other_keys_and_values(
    demo: str, kv_expected: tuple[str, str], batch: int, threads: int
) -> None:
    kv_type, found = kv_expected
    assert digest(demo, memory="min", batch=batch, threads=threads, kv_type=kv_type) == found


def test_one_by_one_with_other_keys_and_values(demo: str, kv_expected: tuple[str, str]) -> None:
    kv_type, found = kv_expected
    assert digest(demo, one_by_one=True, kv_type=kv_type) == found


@pytest.mark.parametrize("eviction", EVICTION_POLICIES)
def test_least_budget_and_eviction_policies(demo: str, expected: str, eviction: str) -> None:
    assert digest(demo, memory="min", eviction=eviction) == expected


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("name", PRELOAD_POLICIES)
def test_preload_policies(demo: str, expected: str, name: str, layers: int) -> None:
    preload = PreloadPolicy(name, layers)
    assert digest(demo, memory="min", batch=32, preload=preload) == expected
    assert digest(demo, memory="min", one_by_one=True, preload=preload) == expected


@pytest.mark.parametrize("mode", MODES)
def test_modes(demo: str, expected: str, mode: str) -> None:
    assert digest(demo, memory="min", batch=32, mode=mode) == expected
    assert digest(demo, memory="min", one_by_one=True, mode=mode) == expected


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ["auto", "always"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictors(demo: str, expected: str, predictor: str, name: str, layers: int) -> None:
    preload = PreloadPolicy(name, layers, predictor)
    assert digest(demo, memory="min", batch=3, preload=preload) == expected
    assert digest(demo, memory="min", one_by_one=True, preload=preload) == expected


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_what_earlier_runs_learned(
    demo: str, expected: str, tmp_path: Path, predictor: str
) -> None:
    options: dict[str, Any] = {
        "memory": "min",
        "cache_folder": str(tmp_path),
        "preload": PreloadPolicy(predictor=predictor),
        "one_by_one": True,
    }
    for _ in range(3):
        assert digest(demo, **options) == expected
    kept = list(tmp_path.iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(b"damaged")
    assert digest(demo, **options) == expected


@pytest.mark.parametrize("eviction", EVICTION_POLICIES)
def test_a_budget_that_changes_between_evaluations(demo: str, expected: str, eviction: str) -> None:
    with Model.load(demo, context=256, memory="1GiB", batch=16, eviction=eviction) as model:
        least = model.set_memory("min")["least_bytes"]
        random = np.random.default_rng(1)
        everything = model.memory_plan()["all_experts_bytes"]
        rows = []
        for row in model.logit_rows(TOKENS):
            rows.append(row)
            model.set_memory(least + int(random.integers(0, everything)))
    assert hashlib.sha256(np.concatenate(rows).tobytes()).hexdigest() == expected


def test_a_budget_that_changes_while_steps_run(demo: str, expected: str) -> None:
    with Model.load(demo, context=256, memory="1GiB", batch=1) as model:
        least = model.set_memory("min")["least_bytes"]
        everything = model.memory_plan()["all_experts_bytes"]
        done = threading.Event()

        def change() -> None:
            random = np.random.default_rng(2)
            while not done.is_set():
                model.set_memory(least + int(random.integers(0, everything)))
                time.sleep(0.002)

        changing = threading.Thread(target=change)
        changing.start()
        try:
            rows = model.logits(TOKENS)
        finally:
            done.set()
            changing.join()
    assert hashlib.sha256(rows.tobytes()).hexdigest() == expected


@pytest.mark.parametrize("io", ["auto", "pread", "buffered"])
def test_readers(demo: str, expected: str, io: str) -> None:
    assert digest(demo, memory="min", io=io) == expected


def test_reader_uring_where_the_kernel_allows_it(demo: str, expected: str) -> None:
    if _core.file_access(demo, "auto")["io_uring_problem"]:
        pytest.skip("io_uring is not available")
    assert digest(demo, memory="min", io="uring") == expected


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_device_that_reorders_and_falters(demo: str, expected: str, seed: int) -> None:
    io = f"simulated:seed={seed},reorder=1,short=0.2,eintr=0.1,eagain=0.1"
    assert digest(demo, memory="min", io=io) == expected


@pytest.mark.parametrize("kib", [16, 64])
def test_a_device_with_coarse_alignment(demo: str, expected: str, kib: int) -> None:
    assert digest(demo, memory="min", io=f"simulated:align={kib * 1024}") == expected


@pytest.mark.parametrize("preload", ["none", "always"])
def test_a_device_that_brings_one_matrix_after_another(
    demo: str, expected: str, preload: str
) -> None:
    io = "simulated:latency=20,serial=1"
    options: dict[str, Any] = {"io": io, "preload": PreloadPolicy(preload)}
    assert digest(demo, memory="min", one_by_one=True, **options) == expected


def digest_at_level(edgemoe: Run, demo: str, folder: Path, kv_type: str, level: str) -> str:
    tokens = folder / "tokens"
    tokens.write_text(" ".join(map(str, TOKENS)))
    out = folder / "logits.npy"
    words = ("--tokens", tokens, "--out", out, "--kv-type", kv_type)
    result = edgemoe("logits", demo, *words, EDGEMOE_LEVEL=level)
    assert result.returncode == 0, result.stderr
    return hashlib.sha256(np.load(out).tobytes()).hexdigest()


@pytest.mark.parametrize("level", _core.levels())
def test_levels(demo: str, expected: str, level: str, edgemoe: Run, tmp_path: Path) -> None:
    assert digest_at_level(edgemoe, demo, tmp_path, "f16", level) == expected


@pytest.mark.parametrize("level", _core.levels())
def test_levels_with_other_keys_and_values(
    demo: str, kv_expected: tuple[str, str], level: str, edgemoe: Run, tmp_path: Path
) -> None:
    kv_type, found = kv_expected
    assert digest_at_level(edgemoe, demo, tmp_path, kv_type, level) == found


def test_an_unknown_level_is_an_error_that_lists_the_known(demo: str, edgemoe: Run) -> None:
    result = edgemoe("run", demo, "-p", "x", "-n", "1", EDGEMOE_LEVEL="sse9")
    assert result.returncode == 1
    assert b"sse9" in result.stderr
    assert b"scalar" in result.stderr
    assert result.stderr.count(b"\n") == 1
