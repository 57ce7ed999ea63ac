"""Fixtures: the bundled demo model, and the command line as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgemoe import Model
from edgemoe.demo import demo_path

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(autouse=True, scope="session")
def _no_memory_of_earlier_runs() -> Iterator[None]:
    """Tests neither read nor write the cache folder of whoever runs them."""
    before = os.environ.get("EDGEMOE_CACHE")
    os.environ["EDGEMOE_CACHE"] = "none"
    yield
    if before is None:
        del os.environ["EDGEMOE_CACHE"]
    else:
        os.environ["EDGEMOE_CACHE"] = before


@pytest.fixture(scope="session")
def demo() -> str:
    return str(demo_path())


@contextmanager
def half_resident(path: str, **options: Any) -> Iterator[Model]:
    """The pool holds half of the experts, however much memory the tests take themselves."""
    with Model.load(path, **{"context": 128, "memory": "1GiB", **options}) as model:
        least = model.set_memory("min")["least_bytes"]
        model.set_memory(least + model.memory_plan()["all_experts_bytes"] // 2)
        yield model


@pytest.fixture(scope="session")
def edgemoe() -> Run:
    """Runs `edgemoe ARGUMENTS...` in a process of its own."""

    def run(
        *arguments: str | bytes | Path, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        command: Sequence[str | bytes | Path] = [sys.executable, "-m", "edgemoe", *arguments]
        # Not in the work tree, whose folder `edgemoe` is not the installed package.
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env={**os.environ, **environment},
            cwd=tempfile.gettempdir(),
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def fails(edgemoe: Run) -> Callable[..., str]:
    """Runs a command that must fail: one line on standard error, no traceback, that status."""

    def run(status: int, *arguments: str | bytes | Path, stdin: bytes = b"") -> str:
        result = edgemoe(*arguments, stdin=stdin)
        message = result.stderr.decode("utf-8")
        assert result.returncode == status, message
        assert message.startswith("edgemoe: ")
        assert message.count("\n") == 1, message
        return message

    return run
