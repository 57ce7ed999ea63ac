"""What this machine offers to the engine, and what stands in the way."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemoe import __version__, _core
from edgemoe.demo import DEMO_PROMPT, demo_path
from edgemoe.errors import EdgemoeError
from edgemoe.model import Model

_PROBE_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_SECONDS = 1.0
_DEMO_TOKENS = 64


@contextmanager
def _probe_file() -> Iterator[str]:
    """A file that was really written, so that reading it asks the device."""
    with tempfile.NamedTemporaryFile(prefix="edgemoe-doctor-") as file:
        block = os.urandom(1 << 20)
        for _ in range(_PROBE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        yield file.name


def _storage(path: str) -> dict[str, Any]:
    access = _core.file_access(path, "auto")
    problem = access["io_uring_problem"]
    report: dict[str, Any] = {
        "path": path,
        "direct_io": access["direct"],
        "alignment": access["alignment"],
        "io_uring": not problem,
        "io_uring_problem": problem,
        "bytes_per_second": {},
    }
    backends = ["pread", *([] if problem else ["uring"])]
    for backend in backends:
        size = min(_READ_BYTES, access["bytes"])
        speed = _core.device_speed(path, backend, size, _SECONDS)
        report["bytes_per_second"][backend] = speed
    return report


def _board() -> str:
    """What the firmware calls the board; empty where it says nothing (most PCs)."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").rstrip("\0\n")
    except (OSError, UnicodeDecodeError):
        return ""


def time_demo() -> dict[str, float]:
    """Tokens per second of the demo model, with all experts in memory and with the least memory."""
    speeds = {}
    for memory in ("auto", "min"):
        with Model.load(str(demo_path()), memory=memory, cache_folder="none") as model:
            run = model.generate(DEMO_PROMPT, max_tokens=_DEMO_TOKENS, temperature=0)
            for _ in run:
                pass
            speeds[memory] = (len(run.tokens) - 1) / run.seconds
    return speeds


def examine(path: str | None = None) -> dict[str, Any]:
    """Facts about CPU, memory and storage; `path` names a file on the device to measure.

    Raises ReadError when `path` cannot be read.
    """
    try:
        selected, level_problem = _core.selected_level(), ""
    except EdgemoeError as error:
        selected, level_problem = "", str(error)
    report: dict[str, Any] = {
        "version": __version__,
        "machine": platform.machine(),
        "board": _board(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "cpus": _core.cpus(),
        "levels": _core.levels(),
        "level": selected,
        "level_problem": level_problem,
        "page_bytes": _core.page_bytes(),
        "memory": _core.memory(),
    }
    if path is not None:
        report["storage"] = _storage(path)
    else:
        with _probe_file() as probe:
            report["storage"] = _storage(probe)
            report["storage"]["path"] = tempfile.gettempdir()
    return report
