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

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
_PROBE_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_SECONDS = 1.0
_DEMO_TOKENS = 64


def _file_system(path: str) -> tuple[str, str]:
    """(type, device) of what holds a file; empty where the system does not say."""
    number = os.stat(path).st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        device = Path("/sys/dev/block") / wanted
        name = device.resolve().name if device.exists() else ""
    except (OSError, UnicodeDecodeError):
        return "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0], name
    return "", name


def _is_memory(path: str) -> bool:
    return _file_system(path)[0] in MEMORY_FILE_SYSTEMS


def _probe_folder() -> str:
    """The folder for temporary files, or where that is memory another one that can be written."""
    for folder in (tempfile.gettempdir(), os.getcwd(), str(Path.home())):
        if os.access(folder, os.W_OK) and not _is_memory(folder):
            return folder
    return tempfile.gettempdir()


@contextmanager
def _probe_file() -> Iterator[str]:
    """A file that was really written, so that reading it asks the device."""
    with tempfile.NamedTemporaryFile(prefix="edgemoe-doctor-", dir=_probe_folder()) as file:
        block = os.urandom(1 << 20)
        for _ in range(_PROBE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        yield file.name


def _storage(path: str) -> dict[str, Any]:
    access = _core.file_access(path, "auto")
    problem = access["io_uring_problem"]
    kind, device = _file_system(path)
    report: dict[str, Any] = {
        "path": path,
        "file_system": kind,
        "device": device,
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


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _value(file: str, *names: str) -> str:
    """What follows the first of `names` that a file of /proc has, such as "model name"."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    values = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return next((values[name] for name in names if name in values), "")


def _kibibytes(name: str) -> int:
    """Bytes of a line of /proc/meminfo."""
    value = _value("/proc/meminfo", name).removesuffix(" kB")
    return int(value) << 10 if value.isdecimal() else 0


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
        "system": _system(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "cpus": _core.cpus(),
        "cpu": _value("/proc/cpuinfo", "model name", "CPU part"),
        "levels": _core.levels(),
        "level": selected,
        "level_problem": level_problem,
        "page_bytes": _core.page_bytes(),
        "memory": {
            **_core.memory(),
            "total_bytes": _kibibytes("MemTotal"),
            "swap_bytes": _kibibytes("SwapTotal"),
        },
    }
    if path is not None:
        report["storage"] = _storage(path)
    else:
        with _probe_file() as probe:
            report["storage"] = _storage(probe)
            report["storage"]["path"] = str(Path(probe).parent)
    return report
