"""The ARM levels under qemu-user: the same bits as scalar code and as this machine.

Run by tools/test.py after it has cross-built build/aarch64; alone:
`cmake --preset aarch64 && cmake --build --preset aarch64 && pytest tests/arm`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build/aarch64"
QEMU = "qemu-aarch64-static"
# A model with layers that see a window and layers that see everything, and options for a context in
# which attention goes over several of its blocks of positions.
LONG_CONTEXT = (ROOT / "tests/golden/gemma4.gguf", "--tokens", "200", "--context", "256")
MODELS = [ROOT / "edgemoe/demo/demo-moe-22m.gguf", *sorted((ROOT / "tests/golden").glob("*.gguf"))]

pytestmark = pytest.mark.skipif(
    shutil.which(QEMU) is None or not (BUILD / "tests/cpp/edgemoe_tests").exists(),
    reason="needs qemu-user-static and `cmake --build --preset aarch64`",
)


def run(*command: str | Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def fingerprint(*command: str | Path, level: str = "") -> dict[str, Any]:
    output = run(*command, "--threads", "2", "--memory", "min", EDGEMOE_LEVEL=level)
    answer: dict[str, Any] = json.loads(output)
    return answer


def on_arm(*words: str | Path, cpu: str = "max", level: str = "") -> dict[str, Any]:
    bench = BUILD / "bench/edgemoe-bench"
    return fingerprint(QEMU, "-cpu", cpu, bench, "fingerprint", *words, level=level)


def here(*words: str | Path) -> dict[str, Any]:
    bench = Path(sysconfig.get_path("scripts")) / "edgemoe-bench"
    return fingerprint(bench, "fingerprint", *words)


def test_kernels_of_every_level_have_the_scalar_bits() -> None:
    output = run(QEMU, "-cpu", "max", BUILD / "tests/cpp/edgemoe_tests", "at every level")
    assert " 0 failed" in output


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.stem)
def test_logits_have_the_bits_of_this_machine(model: Path) -> None:
    expected = here(model)["fingerprint"]
    for level in ("neon", "dotprod", "i8mm"):
        answer = on_arm(model, level=level)
        assert answer["level"] == level
        assert answer["fingerprint"] == expected, level


def test_a_long_context_has_the_bits_of_this_machine() -> None:
    expected = here(*LONG_CONTEXT)
    assert expected["tokens"] == 200
    for level in ("neon", "dotprod", "i8mm"):
        assert on_arm(*LONG_CONTEXT, level=level)["fingerprint"] == expected["fingerprint"], level


@pytest.mark.parametrize(
    ("cpu", "level"), [("cortex-a53", "neon"), ("cortex-a76", "dotprod"), ("max", "i8mm")]
)
def test_the_best_level_of_a_cpu_is_chosen(cpu: str, level: str) -> None:
    assert on_arm(MODELS[0], cpu=cpu)["level"] == level
