"""The budget at run time: set_memory, and the governor on an imitated system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemoe import ArgumentError, MemoryBudgetError, Model, _core
from edgemoe.cli.generating import Meter
from edgemoe.options import LoadOptions
from edgemoe.stats import Stats

TOKENS = [1, *range(300, 400)]


def resident_bytes() -> int:
    return int(_core.memory()["resident_bytes"])


def fill_pool(model: Model) -> None:
    for first in range(0, 4000, 100):
        model.logits([1, *range(first, first + 99)])


def test_a_smaller_budget_gives_memory_back_at_once(demo: str) -> None:
    with Model.load(demo, memory="1GiB", context=256) as model:
        fill_pool(model)
        pool = model.stats().memory["expert_pool_bytes"]
        assert pool == model.memory_plan()["all_experts_bytes"]
        before = resident_bytes()
        plan = model.set_memory("min")
        freed = pool - plan["expert_pool_bytes"]
        assert freed > pool // 2
        assert before - resident_bytes() > 0.9 * freed
        fill_pool(model)
        assert before - resident_bytes() > 0.9 * freed - (1 << 20)


def test_a_larger_budget_is_filled_by_use(demo: str) -> None:
    with Model.load(demo, memory="min", context=256) as model:
        model.set_memory("1GiB")
        fill_pool(model)
        before = model.stats()
        fill_pool(model)
        after = model.stats()
    assert after.memory["expert_pool_bytes"] == model.memory_plan()["all_experts_bytes"]
    assert after.bytes_read == before.bytes_read


def test_the_new_plan_is_shown_everywhere(demo: str) -> None:
    with Model.load(demo, memory="1GiB", context=256) as model:
        loaded = model.memory_plan()
        least = model.set_memory("min")
        budget = least["least_bytes"] + (5 << 20)
        plan = model.set_memory(budget)
        assert plan == model.memory_plan()
        assert plan["budget_bytes"] == model.stats().memory["budget_bytes"] == budget
        assert plan["planned_bytes"] <= budget
        assert plan["expert_pool_bytes"] > least["expert_pool_bytes"]
        for name in ("dense_bytes", "kv_cache_bytes", "scratch_bytes", "context", "batch"):
            assert plan[name] == loaded[name]
        assert model.set_memory("auto")["budget_bytes"] > 0


def test_a_budget_below_the_least_is_refused_and_nothing_changes(demo: str) -> None:
    with Model.load(demo, memory="1GiB", context=256) as model:
        before = model.memory_plan()
        with pytest.raises(MemoryBudgetError, match="the least that runs is .*KV cache"):
            model.set_memory("8MiB")
        with pytest.raises(ArgumentError):
            model.set_memory("lots")
        assert model.memory_plan() == before
        assert np.isfinite(model.logits(TOKENS)).all()
    with pytest.raises(ArgumentError, match="closed"):
        model.set_memory("1GiB")


class Machine:
    """A folder that imitates /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "proc").mkdir()
        self.set_available(1 << 33)

    def set_available(self, size: int) -> None:
        (self._root / "proc/meminfo").write_text(f"MemAvailable: {size >> 10} kB\n")

    def load(self, demo: str, **options: object) -> _core.Engine:
        core_options = LoadOptions(context=256, **options).as_core()  # type: ignore[arg-type]
        return _core.Engine(
            _core.ModelFile(demo), {**core_options, "system_root": f"{self._root}/"}
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def after_a_step(engine: _core.Engine) -> dict[str, int]:
    session = _core.Session(engine)
    session.evaluate(np.asarray(TOKENS, dtype=np.int32))
    return engine.stats()


def test_pressure_shrinks_the_pool_and_is_counted(machine: Machine, demo: str) -> None:
    engine = machine.load(demo)
    planned = engine.plan()["expert_pool_bytes"]
    machine.set_available(1 << 20)
    stats = after_a_step(engine)
    assert stats["pool_shrinks"] == 1
    assert engine.plan()["token_expert_bytes"] <= stats["expert_pool_bytes"] < planned
    assert engine.plan()["expert_pool_bytes"] == planned


@pytest.mark.parametrize(
    ("memory", "governor", "governed"),
    [("auto", "auto", True), ("auto", "off", False), ("1GiB", "auto", False), ("1GiB", "on", True)],
)
def test_who_is_governed(
    machine: Machine, demo: str, memory: str, governor: str, governed: bool
) -> None:
    engine = machine.load(demo, memory=memory, governor=governor)
    machine.set_available(1 << 20)
    assert (after_a_step(engine)["pool_shrinks"] > 0) == governed


def test_an_explicit_budget_ends_what_pressure_did(machine: Machine, demo: str) -> None:
    engine = machine.load(demo)
    machine.set_available(1 << 20)
    after_a_step(engine)
    assert engine.set_memory(1 << 30)["expert_pool_bytes"] == engine.stats()["expert_pool_bytes"]


def test_an_unknown_governor_is_refused(demo: str) -> None:
    with pytest.raises(ArgumentError, match="known: auto, on, off"):
        Model.load(demo, governor="sometimes")


class Pressed:
    """A model whose pool was changed so many times since it was looked at first."""

    def __init__(self, demo: Model, shrinks: int, grows: int) -> None:
        self._demo = demo
        self._changes = [(0, 0), (shrinks, grows)]

    def stats(self) -> Stats:
        shrinks, grows = self._changes.pop(0)
        return replace(self._demo.stats(), pool_shrinks=shrinks, pool_grows=grows)

    def memory_plan(self) -> dict[str, int]:
        return self._demo.memory_plan()


def test_the_command_line_says_what_pressure_did(demo: str) -> None:
    with Model.load(demo, memory="min") as model:
        quiet = Meter(Pressed(model, 0, 0))  # type: ignore[arg-type]
        assert quiet.pressure_line() is None
        line = Meter(Pressed(model, 3, 1)).pressure_line()  # type: ignore[arg-type]
    assert line is not None
    assert "shrank 3 times and grew once" in line
    assert "\n" not in line
